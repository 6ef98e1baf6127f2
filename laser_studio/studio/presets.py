"""Named settings of the tracker, offered beside the defaults."""

from __future__ import annotations

from typing import Any

from laser_studio.studio.controls import TrackerView

# name -> (one sentence of help, settings)
PRESETS: dict[str, tuple[str, TrackerView]] = {
    "paper": (
        "Our closest reading of LASER, whose text gives no ε, p or start rank: a quarter of the directions, ε 0.95, grow, then reset.",
        TrackerView(rank=25, min_fidelity=0.95, patience=3, growth=8, refresh="cycle", measure="energy"),
    ),
    "exact": (
        "Every direction is kept: nothing is lost but rounding, and memory is negative, for the bases come on top. The reference.",
        TrackerView(rank=100, min_fidelity=1.0),
    ),
    "aggressive": (
        "Few directions and a low ε: the most saving, with losses that show; it grows in small steps and resets late.",
        TrackerView(rank=6, min_fidelity=0.90, patience=5, growth=4),
    ),
}


def presets_json() -> dict[str, dict[str, Any]]:
    """The presets as a page gets them: name -> {help, settings}."""
    return {name: {"help": text, "settings": tracker.to_json()} for name, (text, tracker) in PRESETS.items()}
