"""From what a user gave, a file or a folder, to the file with the weights."""

from __future__ import annotations

import re
from pathlib import Path

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.words import first, shown

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
OFFICIAL_CONFIG_FILE = "all_config.yaml"

_USUAL_NAMES = ("checkpoint", "last.ckpt", "model.ckpt")
_ENDINGS = (".ckpt", ".pt", ".pth", ".safetensors")


def find_weights(path: Path) -> Path:
    """The file itself; of a folder our own file, the latest step_N, or the one file that is called like weights."""
    name = shown(path.name)
    if path.is_file():
        if path.name in (CONFIG_FILE, OFFICIAL_CONFIG_FILE):
            raise CheckpointError(f"{name} is only the configuration: give the folder it lies in, or the file with the weights")
        return path
    if not path.is_dir():
        raise CheckpointError(f"{name or 'the path'} does not exist: give a step_N file, a model.safetensors, or the folder of one")
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    steps = [(int(match[1]), file) for file in path.iterdir() if (match := re.fullmatch(r"step_(\d{1,18})", file.name)) and file.is_file()]
    if steps:
        return max(steps)[1]
    for usual in _USUAL_NAMES:
        if (path / usual).is_file():
            return path / usual
    called_so = sorted(file for file in path.iterdir() if file.suffix in _ENDINGS and file.is_file())
    if len(called_so) > 1:
        raise CheckpointError(f"{name} holds several files of weights, {first(file.name for file in called_so)}: give one of them")
    if not called_so:
        raise CheckpointError(
            f"{name} holds neither {WEIGHTS_FILE} nor a step_N file: if the weights have another name, give the file itself"
        )
    return called_so[0]
