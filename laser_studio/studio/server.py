"""Serving the page: the order in which things start, Gradio's switches, and what is printed."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from laser_studio.studio import quick_gradio
from laser_studio.studio.bringing import MAX_BYTES
from laser_studio.studio.catalogue import Catalogue, find_models, find_recordings
from laser_studio.studio.engine import EngineProcess
from laser_studio.studio.registry import StudioError
from laser_studio.studio.shelf import find_sources
from laser_studio.studio.trainings import DEFAULT_FOLDER, Trainings

FIRST_PORT, PORTS_TRIED = 7860, 40
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    checkpoints: Sequence[Path],
    *,
    watch: Sequence[Path] = (),
    runs: Path | None = None,
    puzzles: Sequence[Path] = (),
    device: str,
    host: str,
    port: int | None,
    share: bool,
    auth: tuple[str, str] | None,
    block: bool,
) -> str:
    """See `laser_studio.studio.launch`."""
    models = find_models(checkpoints)
    recordings = find_recordings(watch, models)
    sources = find_sources(puzzles)
    catalogue = Catalogue(models, device=device, recordings=recordings, sources=sources)
    chosen = choose_port(host, port)
    trainings = Trainings(runs or DEFAULT_FOLDER, device=device)
    own = host in LOOPBACK and not share  # nobody but who started it reaches the page
    uploads = Path(os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir()) / f"laser-studio-uploads-{os.getpid()}")))
    engine = EngineProcess(models, device=device, recordings=recordings, runs=trainings.folder, uploads=uploads, login=own, sources=sources)
    engine.start()  # first of all: torch is loaded there while Gradio is loaded here
    quick_gradio.prepare()

    from starlette.middleware import Middleware

    from laser_studio.studio import batch_page, evaluation_page, layout, train_page
    from laser_studio.studio.head import HeadMiddleware
    from laser_studio.studio.plotly_file import PlotlyMiddleware

    page = layout.build_page(catalogue, engine)
    evaluation_page.build_evaluation_page(page, engine)
    batch_page.build_batch_page(page, engine)
    train_page.build_train_page(page, trainings)
    page.queue(max_size=64)
    # Nothing of ours goes through Gradio's queue, which looks for work a thousand times a second: 5 % of a core at rest.
    if hasattr(page._queue, "sleep_when_free"):
        page._queue.sleep_when_free = 0.25
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gradio warns about things that are ours to decide, such as an open host
            page.launch(
                server_name=host,
                server_port=chosen,
                share=share,
                auth=auth,
                prevent_thread_lock=True,
                inbrowser=False,
                quiet=True,
                show_error=False,
                enable_monitoring=False,
                ssr_mode=False,
                footer_links=[],
                allowed_paths=None,
                max_file_size=MAX_BYTES,
                state_session_capacity=1_000,
                favicon_path=str(layout.favicon()),
                theme=layout.theme(),
                app_kwargs={
                    "middleware": [
                        Middleware(PlotlyMiddleware),
                        Middleware(HeadMiddleware, html=layout.head(), paths=("", evaluation_page.PATH, batch_page.PATH, train_page.PATH)),
                    ]
                },
            )
    except OSError as failure:
        engine.stop()
        cause = failure.strerror or failure
        raise StudioError(f"the page cannot be served at {host}:{chosen}: {cause}; choose another --host or --port") from None
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '') else host}:{chosen}"
    print(f"LASER Studio: {page.share_url or url}   (Ctrl+C ends it)", flush=True)
    if not block:
        return url
    try:
        wait_while_well(engine)
    finally:
        page.close(verbose=False)
        trainings.close()
        engine.stop()
        if uploads.name.startswith("laser-studio-uploads-"):
            shutil.rmtree(uploads, ignore_errors=True)
    return url


def choose_port(host: str, port: int | None) -> int:
    """The port to serve at. Raises `StudioError` where the wanted one, or every usual one, is taken."""
    wanted = port if port is not None else _from_environment()
    if wanted is not None:
        if not _is_free(host, wanted):
            raise StudioError(f"port {wanted} at {host} is taken or not allowed: choose another with --port, or leave --port out")
        return wanted
    for candidate in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if _is_free(host, candidate):
            return candidate
    raise StudioError(f"ports {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} at {host} are all taken: name a free one with --port")


def _from_environment() -> int | None:
    # Hosts of Gradio apps, Spaces among them, say their port this way.
    text = os.environ.get("GRADIO_SERVER_PORT", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _is_free(host: str, port: int) -> bool:
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError):
        raise StudioError(f"host {host[:80]!r} is not an address of this machine: use 127.0.0.1, or 0.0.0.0 for all networks") from None
    family, kind, protocol, _, address = addresses[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except (OSError, OverflowError):
            return False
    return True


def wait_while_well(engine: EngineProcess) -> None:
    """Until Ctrl+C. Raises `StudioError` where the engine says that it cannot run any model here."""
    try:
        while engine.problem is None:
            time.sleep(0.2)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return
    raise StudioError(engine.problem)
