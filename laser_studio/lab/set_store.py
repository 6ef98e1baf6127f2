"""Training sets kept in a run's folder: drawing tens of thousands of puzzles takes minutes, a resumed run reads them in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from laser_studio.files import atomic_path
from laser_studio.lab.augment import Symmetry
from laser_studio.lab.data import PuzzleSet


def kept(path: Path, draw: Callable[[], PuzzleSet], symmetry: Symmetry, shape: tuple[int, int]) -> PuzzleSet:
    """The set in `path`, or a drawn one, which is then written there. What cannot be read or has another shape (N, T) is drawn anew.

    The name of the file must tell everything the set is drawn from; nothing else is compared.
    """
    try:
        tensors = load_file(path)
        inputs, labels = tensors["inputs"], tensors["labels"]
        if inputs.shape == labels.shape == shape and inputs.dtype == labels.dtype == torch.uint8:
            return PuzzleSet(inputs.long(), labels.long(), symmetry)
    except (OSError, SafetensorError, KeyError):
        pass
    drawn = draw()
    with atomic_path(path) as temporary:
        save_file({"inputs": drawn.inputs.to(torch.uint8), "labels": drawn.labels.to(torch.uint8)}, temporary)
    return drawn
