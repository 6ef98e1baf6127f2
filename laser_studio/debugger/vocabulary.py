"""The names that expressions over frames may use, and what each is read from.

Expressions are written in terms of these words only: nothing of a frame can be reached that does not stand here. The table in
docs/breakpoints.md is made from them (`table`). How words are put together is in `grammar`, how they are evaluated in `expressions`.
Wall times and allocator figures are left out on purpose: a breakpoint must stop at the same frame in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from laser_studio.debugger.frames import EventKind, Frame, SiteFrame


@dataclass(frozen=True, slots=True)
class Word:
    """A name, and in one phrase what it means."""

    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class OfFrame(Word):
    """Read from a frame, and where `looks_back` from the one before it too; a condition (`truth`) or a number, None for nothing."""

    of: Callable[[Frame, Frame | None], float | None]
    truth: bool = False
    looks_back: bool = False


@dataclass(frozen=True, slots=True)
class OfSite(Word):
    """A number of each site. Of several sites it is the least, or the largest.

    alone: what the bare name reads, where that is not all sites taken so; `alone_means` says it in words.
    """

    of: Callable[[SiteFrame], float | None]
    least: bool = True
    alone: Callable[[Frame], float | None] | None = None
    alone_means: str = ""


@dataclass(frozen=True, slots=True)
class OfEvent(Word):
    """A condition: an event of this kind at the frame, of one of the sites named, or of any."""

    kind: EventKind


@dataclass(frozen=True, slots=True)
class OfCell(Word):
    """A number of each cell, in order. The bare name is the least over all cells, where that means something."""

    of: Callable[[Frame], Sequence[float]]
    alone: bool


def _happened(kind: EventKind) -> Callable[[Frame, Frame | None], bool]:
    return lambda frame, _: any(event.kind == kind for event in frame.events)


def _diverged(frame: Frame, before: Frame | None) -> bool:
    return before is not None and frame.solved is not None and frame.total > 0 and frame.right < before.right


_WORDS: tuple[Word, ...] = (
    OfFrame("index", "number of the frame; 0 is the state before any recursion", lambda f, _: f.index),
    OfFrame("s", "supervision step, from 1", lambda f, _: f.s),
    OfFrame("h", "H cycle within it, from 1", lambda f, _: f.h),
    OfFrame(
        "l",
        "L cycle within that, from 1; nothing at the z_H update, which `l == H` and `l != H` ask for",
        lambda f, _: None if f.l == "H" else f.l,
    ),
    OfFrame("cycle", "this step is a z_H update: an H cycle ends", lambda f, _: f.l == "H", truth=True),
    OfFrame("supervision", "a supervision step ends", lambda f, _: f.ends_supervision, truth=True),
    OfFrame("answer_changed", "a cell of the answer differs from the frame before", _happened("changed"), truth=True),
    OfFrame("changed_cells", "how many cells differ from the frame before", lambda f, _: len(f.changed)),
    OfFrame("solved", "the puzzle becomes solved at this frame", _happened("solved"), truth=True),
    OfFrame("unsolved", "the solution is lost at this frame", _happened("unsolved"), truth=True),
    OfFrame("is_solved", "the puzzle is solved; false where that cannot be told", lambda f, _: f.solved is True, truth=True),
    OfFrame(
        "diverged",
        "fewer cells are right than at the frame before; false where no verdict is possible",
        _diverged,
        truth=True,
        looks_back=True,
    ),
    OfFrame("right", "cells to fill in that are right", lambda f, _: f.right),
    OfFrame("wrong", "cells that are wrong; nothing where that cannot be known", lambda f, _: None if f.wrong is None else len(f.wrong)),
    OfFrame("total", "cells to fill in", lambda f, _: f.total),
    OfFrame("batch", "puzzles run together", lambda f, _: f.batch),
    OfFrame("batch_solved", "how many of them are solved", lambda f, _: f.batch_solved),
    OfFrame("batch_right", "share of right cells over all of them", lambda f, _: f.batch_right),
    OfCell("cell", "value of the answer in that cell", lambda f: f.answer, alone=False),
    OfCell(
        "confidence",
        "probability of the cell's answer under the model's own stablemax",
        lambda f: f.confidence,
        alone=True,
    ),
    OfFrame("q_halt", "the halting logit; above 0 the model would stop", lambda f, _: f.q_halt),
    OfFrame("halt_probability", "the same as a probability", lambda f, _: f.halt_probability),
    OfFrame("halt", "q_halt rises above 0 at this frame", _happened("halt"), truth=True),
    OfFrame("residual", "‖z_t − z_{t−1}‖ of the state this step updated", lambda f, _: f.residual),
    OfFrame("not_finite", "activations are not finite", lambda f, _: not f.finite, truth=True),
    OfSite("fidelity", "share of the energy of this step's input that the basis keeps, as shown on screen", lambda s: s.fidelity),
    OfSite("centred", "the same with the mean row removed", lambda s: s.centred),
    OfSite(
        "window_fidelity", "the same over the window this step closed, which the rule judged; nothing between", lambda s: s.window_fidelity
    ),
    OfFrame("mean_fidelity", "mean of the sites' fidelities", lambda f, _: f.mean_fidelity),
    OfSite("rank", "directions of the basis; 0 before the first one", lambda s: s.rank, least=False),
    OfSite("dim", "width D of the input", lambda s: s.dim, least=False),
    OfSite("misses", "windows in a row below the minimum fidelity", lambda s: s.misses, least=False),
    OfSite(
        "angle",
        "largest principal angle by which this step turned the basis, in degrees; nothing where it did not",
        lambda s: s.angles[0] if s.angles else None,
        least=False,
    ),
    OfSite("best", "energy share of the window's best basis of this rank, where measured", lambda s: s.best),
    OfSite("retained", "share of energy that all stored activations still keep", lambda s: s.retained),
    OfSite("versions", "bases kept for what is stored", lambda s: s.versions, least=False),
    OfSite(
        "functional",
        "exp(−KL) of the output had the site read its compressed input, where measured",
        lambda s: s.functional,
        alone=lambda f: f.functional,
        alone_means="with every site compressed at once",
    ),
    OfSite(
        "flips",
        "open cells whose answer flips then, where measured",
        lambda s: s.flips,
        least=False,
        alone=lambda f: f.flips,
        alone_means="with every site compressed at once",
    ),
    OfFrame("kl", "that KL with every site compressed at once, nats per open cell, where measured", lambda f, _: f.kl),
    OfSite(
        "gradient",
        "cosine of the exact weight gradient and the one from Z, where measured",
        lambda s: s.gradient,
        alone=lambda f: f.gradient,
        alone_means="over all sites together",
    ),
    OfSite(
        "saving",
        "net share of bytes saved in the history",
        lambda s: s.history.saving,
        alone=lambda f: f.history.saving,
        alone_means="of the whole history",
    ),
    OfSite(
        "training_saving",
        "net share of bytes saved in one training step's linear inputs",
        lambda s: s.training.saving,
        alone=lambda f: f.training.saving,
        alone_means="of all sites together",
    ),
    OfFrame("kept_bytes", "bytes the history really keeps, bases included", lambda f, _: f.history.stored_bytes + f.history.basis_bytes),
    OfFrame("full_bytes", "bytes of the same activations in full", lambda f, _: f.history.full_bytes),
    OfFrame("resets", "resets since step 0, of all sites", lambda f, _: f.resets),
    OfEvent("reset", "the rule reset a basis", "reset"),
    OfEvent("grew", "a rank grew", "grew"),
    OfEvent("miss", "a window closed below the minimum fidelity, and nothing was done yet", "miss"),
    OfEvent("saturated", "the minimum fidelity cannot be reached at the largest rank", "saturated"),
    OfEvent("started", "the first basis was made", "started"),
    OfEvent("turned", "a basis was turned before its window ended", "turned"),
    OfEvent("policy", "a rank followed changed settings", "policy"),
    OfFrame("history_full", "stored activations had to go to keep the byte budget", _happened("budget"), truth=True),
)

WORDS: dict[str, Word] = {word.name: word for word in _WORDS}

FUNCTIONS: dict[str, str] = {
    "abs": "`abs(x)`: the size of a number",
    "min": "`min(x, y, …)`: the least number; `min(fidelity)`, `min fidelity(*.mlp.*)`: of one word over sites or cells",
    "max": "`max(x, y, …)`: the largest; over sites or cells likewise",
    "mean": "`mean(x, y, …)`: the mean; over sites or cells likewise",
    "prev": "`prev(x)`: a number or condition as it was at the frame before; nothing, or false, where there is none",
    "becomes": "`becomes(condition)`: it holds, and did not at the frame before; false where there is none",
    "known": "`known(x)`: whether there is a value",
}

# What people try, and what it is called here.
SYNONYMS = {
    "step": "index",
    "t": "index",
    "frame": "index",
    "grow": "grew",
    "grown": "grew",
    "nan": "not_finite",
    "inf": "not_finite",
    "finite": "not_finite",
    "changed": "answer_changed",
    "average": "mean",
    "previous": "prev",
    "angles": "angle",
    "value": "cell",
    "loss": "kl",
}


def is_truth(word: Word) -> bool:
    """Whether the word is a condition; otherwise it is a number."""
    return isinstance(word, OfEvent) or (isinstance(word, OfFrame) and word.truth)


def offers() -> list[tuple[str, str, str]]:
    """What can be typed, for completion: how it is written, what it is (condition, number or function), what it means."""
    offered = []
    for word in WORDS.values():
        kind = "condition" if is_truth(word) else "number"
        forms = [f"{word.name}(row, column)"] if isinstance(word, OfCell) else [word.name]
        if isinstance(word, OfCell) and word.alone:
            forms.append(word.name)
        if isinstance(word, OfSite | OfEvent):
            forms.append(f"{word.name}(site)")
        offered += [(form, kind, word.meaning) for form in forms]
    for name, said in FUNCTIONS.items():
        form, _, meaning = said.replace("`", "").partition(": ")
        offered.append((form, "condition" if name in ("becomes", "known") else "function", meaning))
    return [*offered, ("l == H", "condition", "this step is a z_H update"), ("x changed", "condition", "x differs from the frame before")]


def table() -> str:
    """The words as a Markdown table, in order: name, how it is written, what it is, what it means."""
    lines = ["| name | written | is a | meaning |", "| --- | --- | --- | --- |"]
    for word in WORDS.values():
        forms, meaning = [f"`{word.name}`"], word.meaning
        if isinstance(word, OfSite | OfEvent):
            forms.append(f"`{word.name}(site)`")
        if isinstance(word, OfCell):
            forms = [f"`{word.name}(row, column)`", *(forms if word.alone else [])]
            meaning += "; alone: the least over cells" if word.alone else ""
        if isinstance(word, OfSite):
            several = f"the {'least' if word.least else 'largest'} over sites"
            meaning += f"; alone: {word.alone_means}, of several sites: {several}" if word.alone else f"; {several}"
        if isinstance(word, OfEvent):
            meaning += "; alone: any site"
        lines.append(f"| `{word.name}` | {', '.join(forms)} | {'condition' if is_truth(word) else 'number'} | {meaning} |")
    return "\n".join(lines) + "\n"
