"""Where puzzles come from: files, folders and packages as collections that are indexed at once and read one puzzle at a time.

One reader a file; `opening` finds the one that fits. Nothing here is a screen's, and no path comes from a page.
"""

from laser_studio.puzzles.sources.collection import Collection, Entry, Fixed
from laser_studio.puzzles.sources.opening import collection_named, open_collection, read_upload

__all__ = ["Collection", "Entry", "Fixed", "collection_named", "open_collection", "read_upload"]
