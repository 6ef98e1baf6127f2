"""The model: Tiny Recursive Model layers, recursion and checkpoints. Knows nothing of puzzles, trackers or screens."""

from laser_studio.trm.checkpoints import CheckpointNeeds, Need, load_checkpoint, save_checkpoint, save_official
from laser_studio.trm.config import TRMConfig
from laser_studio.trm.model import TRM, Carry, Outputs, RecursionStep

__all__ = [
    "TRM",
    "Carry",
    "CheckpointNeeds",
    "Need",
    "Outputs",
    "RecursionStep",
    "TRMConfig",
    "load_checkpoint",
    "save_checkpoint",
    "save_official",
]
