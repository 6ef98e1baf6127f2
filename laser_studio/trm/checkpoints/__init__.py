"""Checkpoints: every supported family in (docs/checkpoints.md), our own folder and the official format out.

A checkpoint is a stranger's file, so nothing in it is believed: `payload` opens it without running anything in it, `weights` finds the
weights, a reader per family (`official`, …) names them, `loaded` compares every name and shape with the architecture before a
model is built. What fails is a `CheckpointError` in plain words. The debugger, the lab and the studio call `load_checkpoint`; nothing
else in the project reads model files.
"""

from laser_studio.trm.checkpoints.conversion import convert
from laser_studio.trm.checkpoints.loading import load_checkpoint
from laser_studio.trm.checkpoints.needs import CheckpointNeeds, Need
from laser_studio.trm.checkpoints.official import official_name, official_weights, save_official
from laser_studio.trm.checkpoints.own import save_checkpoint
from laser_studio.trm.checkpoints.puzzle_rows import known_tasks

__all__ = [
    "CheckpointNeeds",
    "Need",
    "convert",
    "known_tasks",
    "load_checkpoint",
    "official_name",
    "official_weights",
    "save_checkpoint",
    "save_official",
]
