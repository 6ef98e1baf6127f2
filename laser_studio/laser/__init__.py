"""The science: trackers that keep one orthonormal basis per site current, their rule, settings and taps; activation compression.

Knows nothing of TRM, puzzles or screens; works on any `nn.Module` whose linear layers are applied again and again.
"""

from laser_studio.laser.compress import Compression, StagedModule, compress
from laser_studio.laser.event import TrackerEvent
from laser_studio.laser.policy import LaserPolicy
from laser_studio.laser.sites import SiteTap, find_sites
from laser_studio.laser.together import Group
from laser_studio.laser.tracker import Snapshot, SubspaceTracker

__all__ = [
    "Compression",
    "Group",
    "LaserPolicy",
    "SiteTap",
    "Snapshot",
    "StagedModule",
    "SubspaceTracker",
    "TrackerEvent",
    "compress",
    "find_sites",
]
