"""What is looked into: cells, sites, findings. Frames that assets/js fills; see `panels` for what may stand in here."""

from __future__ import annotations

FINDINGS = ""

SOLVE = ""
