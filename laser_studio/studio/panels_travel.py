"""Breakpoints, watches and bookmarks on the page. Frames that assets/js fills; see `panels` for what may stand in here."""

from __future__ import annotations

BREAKPOINTS = ""

WATCHES = ""
