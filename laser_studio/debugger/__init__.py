"""The debugger's engine: sessions, frames, history. Joins model, puzzles and tracker; knows nothing of screens."""

from laser_studio.debugger.frames import Event, Frame, SiteFrame
from laser_studio.debugger.measures import Measures
from laser_studio.debugger.session import NAMED_CONDITIONS, Session
from laser_studio.debugger.watched_run import WatchedRun
from laser_studio.debugger.watching import Watcher, WatchLedger, watch

__all__ = ["NAMED_CONDITIONS", "Event", "Frame", "Measures", "Session", "SiteFrame", "WatchLedger", "WatchedRun", "Watcher", "watch"]
