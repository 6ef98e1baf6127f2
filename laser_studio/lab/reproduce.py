"""Shipped models trained again from their recipes, and their accuracy compared with what their cards say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from laser_studio.assets import asset_path, asset_root
from laser_studio.errors import TrainingError
from laser_studio.lab.card import RECIPE_FILE
from laser_studio.lab.recipes import Recipe, get_recipe
from laser_studio.lab.report import wilson
from laser_studio.lab.runs import Observer, run

CONFIDENCE = 0.99  # of both intervals: a dozen models are compared, and none should fail by chance


@dataclass(frozen=True)
class Card:
    """What a shipped model says of itself: exact accuracy on `puzzles` held-out puzzles, the device and the recipe."""

    name: str
    exact: float
    puzzles: int
    device: str
    recipe: Recipe


@dataclass(frozen=True)
class Outcome:
    """A model trained again. low, high: 99 % interval of its exact accuracy."""

    card: Card
    exact: float
    low: float
    high: float

    @property
    def reached(self) -> bool:
        """Whether the new accuracy is not below the card's by more than chance: the intervals of both meet, or it is higher."""
        return self.high >= wilson(self.card.exact * self.card.puzzles, self.card.puzzles, CONFIDENCE)[0]

    def __str__(self) -> str:
        verdict = "reached" if self.reached else "FALLS SHORT"
        found = f"{self.exact:.1%} [{self.low:.1%}, {self.high:.1%}]"
        return f"{self.card.name}: {found} of {self.card.puzzles:,} held-out puzzles, the card says {self.card.exact:.1%}: {verdict}"


def read_card(name: str) -> Card:
    """The card of a shipped model. Raises `TrainingError` where there is none that says how to train it."""
    known = _shipped()
    if name not in known:
        raise TrainingError(f"no shipped model {name[:40]!r}: choose of {', '.join(known)}")
    folder = asset_path("checkpoints", name)
    details = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("details", {})
    try:
        recipe = get_recipe(details["task"], file=folder / RECIPE_FILE, changes=["train.compile=false"])  # a compiler may be missing
        return Card(name, float(details["exact_accuracy"]), int(details["held_out_puzzles"]), str(details["device"]), recipe)
    except KeyError as missing:
        raise TrainingError(f"{name}: its card does not say {missing}") from None


def trained_on_cpu() -> list[str]:
    """Names of the shipped models whose cards say that they were trained on a CPU alone."""
    return [name for name in _shipped() if all(part.startswith("cpu") for part in read_card(name).device.split(", then "))]


def _shipped() -> list[str]:
    return sorted(path.parent.name for path in (asset_root() / "checkpoints").glob(f"*/{RECIPE_FILE}"))


def retrain(card: Card, folder: Path, device: torch.device, *, observer: Observer | None = None) -> Outcome | None:
    """Train the card's recipe in `folder` (resuming what is there) and measure it on as many puzzles; None where it was stopped."""
    trained = run(
        card.recipe, folder, device, command=f"python -m laser_studio reproduce {card.name}", held_out=card.puzzles, observer=observer
    )
    if trained is None:
        return None
    exact = trained.accuracy.exact[-1]
    return Outcome(card, exact, *wilson(exact * card.puzzles, card.puzzles, CONFIDENCE))
