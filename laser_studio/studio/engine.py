"""The engine in a process of its own, behind the same functions as `Channel`.

Two things are won. torch and Gradio, seconds of importing each, load side by side on two cores; and a long step never holds
up the server that other pages wait for. Should the engine die, its runs are lost and their pages are told to reload, and the
next request starts a new one. Only plain JSON values travel between the two.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeoutError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from laser_studio.errors import LaserStudioError
from laser_studio.studio.catalogue import Catalogue, ModelEntry, RecordingEntry, SourceEntry
from laser_studio.studio.registry import StudioError

THREADS = 16  # requests worked on at once; those of one run wait for one another
ANSWER_SECONDS = 600.0  # a large model may take minutes to load
SHORTEST_LIFE_SECONDS = 20.0  # an engine that dies sooner is not started again and again
MAX_QUICK_DEATHS = 3

_STOP = "stop"
FUNCTIONS = (
    "open", "advance", "command", "tune", "inquire", "bring", "python", "leave", "close", "report", "evaluate", "follow",
    "puzzles", "batch",
)  # fmt: skip


class Live(Protocol):
    """What a page talks to: a `Channel` here, or one in another process."""

    def open(self, data: Any) -> dict[str, Any]: ...

    def advance(self, data: Any) -> dict[str, Any]: ...

    def command(self, data: Any) -> dict[str, Any]: ...

    def tune(self, data: Any) -> dict[str, Any]: ...

    def inquire(self, data: Any) -> dict[str, Any]: ...

    def bring(self, data: Any) -> dict[str, Any]: ...

    def python(self, data: Any) -> dict[str, Any]: ...

    def leave(self, data: Any) -> dict[str, Any]: ...

    def close(self, data: Any) -> dict[str, Any]: ...

    def report(self, data: Any) -> dict[str, Any]: ...

    def evaluate(self, data: Any) -> dict[str, Any]: ...

    def follow(self, data: Any) -> dict[str, Any]: ...

    def puzzles(self, data: Any) -> dict[str, Any]: ...

    def batch(self, data: Any) -> dict[str, Any]: ...


class EngineProcess:
    """A `Channel` in a child process. `start` returns at once; requests wait until the engine is there."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        device: str = "auto",
        recordings: Sequence[RecordingEntry] = (),
        runs: Path | None = None,
        uploads: Path | None = None,
        login: bool = False,
        sources: Sequence[SourceEntry] = (),
    ) -> None:
        self._arguments = (tuple(entries), device, tuple(recordings), runs, uploads, login, tuple(sources))
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._process: multiprocessing.process.BaseProcess | None = None
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._numbers = itertools.count()
        self._started = 0.0
        self._quick_deaths = 0
        self._stopping = False
        self.problem: str | None = None  # why no model can be run at all, such as a device that is not there

    def start(self) -> None:
        """Start the process, if it does not run."""
        with self._guard:
            if self._connection is None:
                self._spawn()

    def stop(self) -> None:
        """End the process; harmless where it has ended."""
        with self._guard:
            self._stopping = True
            connection, process = self._connection, self._process
            self._connection = None
            if connection is not None:
                with contextlib.suppress(OSError, ValueError):
                    connection.send((None, _STOP, None))
        if process is not None:
            process.join(2)
            if process.is_alive():
                process.terminate()
                process.join(3)

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid if self._process is not None else None

    def open(self, data: Any) -> dict[str, Any]:
        """See `Channel.open`."""
        return self._call("open", data)

    def advance(self, data: Any) -> dict[str, Any]:
        """See `Channel.advance`."""
        return self._call("advance", data)

    def command(self, data: Any) -> dict[str, Any]:
        """See `Channel.command`."""
        return self._call("command", data)

    def tune(self, data: Any) -> dict[str, Any]:
        """See `Channel.tune`."""
        return self._call("tune", data)

    def inquire(self, data: Any) -> dict[str, Any]:
        """See `Channel.inquire`."""
        return self._call("inquire", data)

    def bring(self, data: Any) -> dict[str, Any]:
        """See `Channel.bring`."""
        return self._call("bring", data)

    def python(self, data: Any) -> dict[str, Any]:
        """See `Channel.python`."""
        return self._call("python", data)

    def leave(self, data: Any) -> dict[str, Any]:
        """See `Channel.leave`."""
        return self._call("leave", data)

    def close(self, data: Any) -> dict[str, Any]:
        """See `Channel.close`."""
        return self._call("close", data)

    def report(self, data: Any) -> dict[str, Any]:
        """See `Channel.report`."""
        return self._call("report", data)

    def evaluate(self, data: Any) -> dict[str, Any]:
        """See `Channel.evaluate`."""
        return self._call("evaluate", data)

    def follow(self, data: Any) -> dict[str, Any]:
        """See `Channel.follow`."""
        return self._call("follow", data)

    def puzzles(self, data: Any) -> dict[str, Any]:
        """See `Channel.puzzles`."""
        return self._call("puzzles", data)

    def batch(self, data: Any) -> dict[str, Any]:
        """See `Channel.batch`."""
        return self._call("batch", data)

    def _call(self, name: str, data: Any) -> dict[str, Any]:
        answer: Future[dict[str, Any]] = Future()
        number = next(self._numbers)
        try:
            with self._guard:
                if self._connection is None:
                    self._spawn()
                connection = self._connection
                assert connection is not None
                self._waiting[number] = answer
                connection.send((number, name, data))
            return answer.result(timeout=ANSWER_SECONDS)
        except StudioError as problem:
            return {"error": str(problem), "expired": problem.expired}
        except WaitTimeoutError:
            return {"error": "the engine did not answer for minutes: restart the run, or the studio", "expired": False}
        except (OSError, ValueError, RecursionError):
            # The pipe broke, or what a stranger sent nests too deeply to be passed on.
            return {"error": "this request could not be handed to the engine: reload the page", "expired": False}
        finally:
            self._waiting.pop(number, None)

    def _spawn(self) -> None:
        """Start a process and the thread that reads its answers. The guard is held."""
        if self._stopping:
            raise StudioError("the studio is closing")
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            raise StudioError("the engine stopped again and again: its log has the cause; restart the studio")
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._arguments), name="laser-studio-engine", daemon=True)
        process.start()
        theirs.close()
        self._connection, self._process, self._started = ours, process, time.monotonic()
        threading.Thread(target=self._read, args=(ours,), name="studio-engine-reader", daemon=True).start()

    def _read(self, connection: Connection) -> None:
        while True:
            try:
                number, answer = connection.recv()
            except (EOFError, OSError):
                break
            if number is None:
                self.problem = answer
            elif (waiting := self._waiting.pop(number, None)) is not None:
                waiting.set_result(answer)
        with self._guard:
            if self._connection is connection:
                self._connection = None
            lost = list(self._waiting.values())
            self._waiting.clear()
            self._quick_deaths = self._quick_deaths + 1 if time.monotonic() - self._started < SHORTEST_LIFE_SECONDS else 0
        for waiting in lost:
            if not waiting.done():
                waiting.set_exception(StudioError("the engine stopped and was started anew: reload the page", expired=True))


def leave_cores_free() -> None:
    """Compute on half of the cores, so that serving pages (and the browser, on one machine) has the others.

    The products of a small model gain nothing from more threads, and those that wait for one another keep a core busy.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 2) // 2))


def _serve(
    connection: Connection,
    entries: Sequence[ModelEntry],
    device: str,
    recordings: Sequence[RecordingEntry],
    runs: Path | None,
    uploads: Path | None,
    login: bool,
    sources: Sequence[SourceEntry],
) -> None:
    """The child's whole life: import the engine, load the first model, answer requests until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle; closing the pipe ends this process
    from laser_studio.studio.bringing import Bringing
    from laser_studio.studio.channel import Channel

    catalogue = Catalogue(entries, device=device, recordings=recordings, runs=runs, sources=sources)
    channel = Channel(catalogue, bringing=Bringing(catalogue, uploads=uploads, login=login))
    sending = threading.Lock()

    def tell(number: int | None, answer: Any) -> None:
        with sending, contextlib.suppress(OSError, ValueError):  # the parent is gone: the loop below ends
            connection.send((number, answer))

    def work(number: int, name: str, data: Any) -> None:
        tell(number, getattr(channel, name)(data))

    try:
        channel.preload()
        leave_cores_free()
    except LaserStudioError as problem:
        tell(None, str(problem))

    with ThreadPoolExecutor(THREADS, thread_name_prefix="studio-run") as pool:
        while True:
            try:
                number, name, data = connection.recv()
            except (EOFError, OSError):
                break
            if name == _STOP:
                break
            if name in FUNCTIONS:
                pool.submit(work, number, name, data)
    channel.registry.close_all()
    channel.bringing.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to be saved, and torch takes a second or two to be taken down in order
