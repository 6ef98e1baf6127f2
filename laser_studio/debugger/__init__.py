"""The debugger's engine: sessions, frames, history. Joins model, puzzles and tracker; knows nothing of screens."""

from laser_studio.debugger.bookmarks import Bookmark, Bookmarks
from laser_studio.debugger.breakpoints import Breakpoint, Breakpoints, Hit
from laser_studio.debugger.detectors import Detectors, DetectorSettings, Finding
from laser_studio.debugger.expressions import Bound, Expression, Scope
from laser_studio.debugger.frames import Event, Frame, SiteFrame
from laser_studio.debugger.measures import Measures
from laser_studio.debugger.session import NAMED_CONDITIONS, Session
from laser_studio.debugger.watched_run import WatchedRun
from laser_studio.debugger.watches import Watch, Watches
from laser_studio.debugger.watching import Watcher, WatchLedger, watch

__all__ = [
    "NAMED_CONDITIONS",
    "Bookmark",
    "Bookmarks",
    "Bound",
    "Breakpoint",
    "Breakpoints",
    "DetectorSettings",
    "Detectors",
    "Event",
    "Expression",
    "Finding",
    "Frame",
    "Hit",
    "Measures",
    "Scope",
    "Session",
    "SiteFrame",
    "Watch",
    "WatchLedger",
    "WatchedRun",
    "Watcher",
    "Watches",
    "watch",
]
