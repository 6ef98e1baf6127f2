"""What all commands share: flags for device and threads, and Ctrl-C as a wish to stop rather than an exception."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

if TYPE_CHECKING:
    from laser_studio.trm import TRM

# Brackets would be read as the ends of styles that were never begun.
CHECKPOINT_HELP = escape("Checkpoint file or folder, or hf://owner/name[/file][@revision] of the Hugging Face Hub.")

Device = Annotated[str, typer.Option(help="auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")]


@contextmanager
def stop_on_interrupt() -> Iterator[list[bool]]:
    """A flag that Ctrl-C raises instead of an exception, so that work can be saved first; a second Ctrl-C stops at once."""
    flag = [False]

    def stop(*_: object) -> None:
        if flag[0]:
            raise KeyboardInterrupt
        flag[0] = True

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


def set_threads(threads: int) -> None:
    """Use that many CPU threads; 0 leaves torch's own choice."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def open_checkpoint(checkpoint: str, device: str, **options: Any) -> TRM:
    """`load_checkpoint`; what comes from the Hub is named with its size first, and its progress shown."""
    from laser_studio.hub import fetch_bar
    from laser_studio.trm import load_checkpoint

    return load_checkpoint(checkpoint, device=device, on_fetch=fetch_bar, **options)
