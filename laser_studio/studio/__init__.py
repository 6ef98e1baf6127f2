"""The studio: the page on which a run is watched and steered. `launch` serves it; app.py and the command line call that.

Nothing heavy is imported here, so that a wrong flag is answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["launch"]


def launch(
    checkpoints: Sequence[str | Path] = (),
    *,
    watch: Sequence[str | Path] = (),
    runs: str | Path | None = None,
    puzzles: Sequence[str | Path] = (),
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    block: bool = True,
) -> str:
    """Serve the studio; returns its URL when `block` is off, else when the server ends.

    checkpoints: models offered beside the shipped ones, as paths or hf:// references, which are fetched first. watch: recordings of
    `laser_studio.watch`, the first of which the page opens on; they may still be growing. puzzles: files and data set folders offered
    for browsing and batches. runs: folder in which the training page keeps its runs, `runs/studio` by default. device: "auto", "cpu",
    "cuda", "cuda:1", "mps". port: None takes the first free one from 7860 on. share: also through a public Gradio link. auth: (user,
    password) every visitor needs.
    Raises `LaserStudioError` with the cause and the way out.
    """
    from laser_studio.hub import fetch_bar, is_reference, obtain
    from laser_studio.studio.server import serve

    models = tuple(obtain(path, fetch_bar)[0] if is_reference(path) else Path(path) for path in checkpoints)
    return serve(
        models,
        watch=tuple(Path(path) for path in watch),
        puzzles=tuple(Path(path) for path in puzzles),
        runs=None if runs is None else Path(runs),
        device=device,
        host=host,
        port=port,
        share=share,
        auth=auth,
        block=block,
    )
