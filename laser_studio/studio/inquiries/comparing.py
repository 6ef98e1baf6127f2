"""Comparing a page's run with another at the step it shows: choose one, ask how they stand, stop."""

from __future__ import annotations

from dataclasses import KW_ONLY, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from laser_studio.settings import setting, settings
from laser_studio.studio.beside import Beside
from laser_studio.studio.catalogue import puzzle_label
from laser_studio.studio.controls import RunOptions, TrackerView
from laser_studio.studio.family import MOST_HISTORY, Family, family_of
from laser_studio.studio.inquiries.inquiry import Context, Inquiry, InquiryRequest
from laser_studio.studio.links import MAX_STEP
from laser_studio.studio.presets import PRESETS
from laser_studio.studio.registry import StudioError
from laser_studio.studio.run import Run
from laser_studio.studio.subject import PuzzleSubject, about_site

if TYPE_CHECKING:
    from laser_studio.debugger import Comparison

BRING_SECONDS = 0.1  # computing per reply on the way to the step shown
CURVE_SECONDS = 0.1  # and for the curves, while nothing is moving
MOST_PUZZLES = 60  # offered to compare with


@settings(StudioError)
class ChooseRequest(InquiryRequest):
    """A page chooses what to compare its run with."""

    _: KW_ONLY
    key: str = setting(default="", help="branch:ID, model:NAME, puzzle:ID or preset:NAME; empty: nothing.")


@settings(StudioError)
class AtRequest(InquiryRequest):
    """A page asks how the two stand at the step it shows; it has the first `points` of the curves of `version`."""

    _: KW_ONLY
    key: str = setting(help="What it compares with.")
    version: int = setting(default=0, low=0, high=2**53, help="The version of the curves as the page has them.")
    points: int = setting(default=0, low=0, high=MAX_STEP, help="How many points of them it has.")
    curve: bool = setting(default=False, help="Whether missing points may be worked on.")


def offers(context: Context, run: Run, request: InquiryRequest) -> dict[str, Any]:
    """What the run can be compared with, by groups of [key, label]."""
    family, subject, catalogue = family_of(context.run_id, run), run.subject, context.channel.catalogue
    assert isinstance(subject, PuzzleSubject)
    here = family.of(run)
    others = [[f"branch:{member.id}", member.name] for member in family.members.values() if member is not here]
    task = catalogue.task(subject.model)
    models = [[f"model:{name}", entry.label] for name, entry in catalogue.entries.items() if name != subject.model and entry.task == task]
    puzzles = [
        [f"puzzle:{puzzle.name}", puzzle_label(puzzle)] for puzzle in catalogue.puzzles(subject.model) if puzzle.name != subject.puzzle_id
    ]
    presets = [["preset:defaults", "defaults"], *([f"preset:{name}", name] for name in PRESETS)]
    groups = [
        ["branches", others],
        ["settings of the tracker", presets],
        ["models of this task", models],
        ["puzzles", puzzles[:MOST_PUZZLES]],
    ]
    return {"groups": [group for group in groups if group[1]], "chosen": family.beside.key if family.beside is not None else ""}


def choose(context: Context, run: Run, request: ChooseRequest) -> dict[str, Any]:
    """Compare with another run from now on; what it is."""
    family = family_of(context.run_id, run)
    if not request.key:
        family.part()
        return {"key": ""}
    beside = _beside(context, family, run, request.key)
    return {
        "key": beside.key,
        "title": beside.title,
        "puzzle": beside.other.subject.about()["puzzle"],
        "mine": run.subject.about()["puzzle"],
        "sites": [[site, about_site(site, dim)["label"]] for site, dim in beside.other.session.sites.items()],
    }


def at(context: Context, run: Run, request: AtRequest) -> dict[str, Any]:
    """The comparison at the step shown, or how far the other run has come on its way there."""
    family = family_of(context.run_id, run)
    beside = _beside(context, family, run, request.key)
    wanted = run.session.frame.index
    reached = beside.bring(wanted, BRING_SECONDS)
    told: dict[str, Any] = {"key": beside.key, "wanted": wanted, "reached": reached, "ends": beside.other.finished and reached < wanted}
    if reached < wanted and not told["ends"]:
        return told
    told |= _comparison_json(beside, beside.compared(min(wanted, reached)))
    parted = beside.parted()
    told["parted"] = {"model": parted.model, "answer": parted.answer, "tracker": parted.tracker, "checked": parted.checked}
    told["curve"] = beside.curve(request.version, request.points, CURVE_SECONDS if request.curve else 0.0)
    return told


def _comparison_json(beside: Beside, found: Comparison) -> dict[str, Any]:
    frames = beside.a.frames[found.index], beside.b.frames[found.index]
    return {
        "index": found.index,
        "cells": found.cells,
        "answers": [frame.answer for frame in frames],
        "solved": [frame.solved for frame in frames],
        "wrong": [frame.wrong for frame in frames],
        "kl": found.kl,
        "halting": [found.halting.a, found.halting.b],
        "sites": {
            name: {
                "a": site.a,
                "b": site.b,
                "difference": site.difference,
                "ranks": [site.rank_a, site.rank_b],
                "angles": None if site.angles is None else [site.angles.largest, site.angles.mean],
            }
            for name, site in found.sites.items()
        },
    }


def _beside(context: Context, family: Family, run: Run, key: str) -> Beside:
    """The comparison of `run` with what `key` names, made where it is not there yet. Raises `StudioError`."""
    if family.beside is not None and family.beside.run is run and family.beside.key == key:
        return family.beside
    kind, _, name = key.partition(":")
    if kind == "branch":
        member = family.members.get(name)
        if member is None or member.run is run:
            raise StudioError("there is no such branch to compare with: choose another")
        other, title, free = member.run, member.name, None
    else:
        other, title = _rival(context, run, kind, name)
        registry = context.channel.registry
        free = partial(registry.part, registry.join(context.run_id, other))
    family.part()
    family.beside = Beside(run, other, key, title, free=free)
    return family.beside


def _rival(context: Context, run: Run, kind: str, name: str) -> tuple[Run, str]:
    """A run made for a comparison: what differs is what `kind` says, all else is as in `run`. Raises `StudioError`."""
    from laser_studio.debugger import Session

    subject, catalogue = run.subject, context.channel.catalogue
    assert isinstance(subject, PuzzleSubject)
    mine: Any = run.session
    model_name, puzzle_id, settings, course = subject.model, subject.puzzle_id, run.settings, ()
    if kind == "model":
        entry = catalogue.entries.get(name)
        if entry is None or entry.task != catalogue.task(subject.model):
            raise StudioError("this model is not one of the task at hand: choose another")
        model_name, title = name, entry.label
    elif kind == "puzzle":
        puzzle_id, title = name, name
    elif kind == "preset" and name in ("defaults", *PRESETS):
        chosen = TrackerView() if name == "defaults" else PRESETS[name][1]
        settings, title, course = {0: chosen}, name, mine.course  # all else as it is, what was done to the run as well
    else:
        raise StudioError("there is nothing of that name to compare with")
    model = subject.loaded if model_name == subject.model else catalogue.load(model_name)
    puzzle = catalogue.puzzle(model_name, puzzle_id)
    batch = [(one, catalogue.puzzle(model_name, one)) for one in subject.companion_ids] if kind == "preset" else []
    options = RunOptions(batch=1 + len(batch), beyond=run.options.beyond, history=min(MOST_HISTORY, run.options.history))
    session = Session(
        model,
        puzzle,
        policy=TrackerView().policy(),
        history_bytes=options.history_bytes,
        beyond=options.beyond,
        companions=[one for _, one in batch],
        course=course,
    )
    known = {step: tracker.at_sites(session.sites) for step, tracker in settings.items()}
    session.set_policy(known[0].policy())
    about = replace(
        subject, model=model_name, loaded=model, puzzle_id=puzzle_id, puzzle=session.puzzle, companion_ids=tuple(i for i, _ in batch)
    )
    rival = Run(session, about, {0: known[0]}, options, pending={step: tracker for step, tracker in known.items() if step > 0})
    return rival, title


INQUIRIES = {
    "compare.offers": Inquiry(InquiryRequest, offers),
    "compare.choose": Inquiry(ChooseRequest, choose),
    "compare.at": Inquiry(AtRequest, at),
}
