"""Looking into the run: findings, a cell's probabilities and latents, where it reads from, a site's directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Any

from laser_studio.settings import setting, settings
from laser_studio.studio.findings import Findings
from laser_studio.studio.inquiries.inquiry import Context, Inquiry, InquiryRequest
from laser_studio.studio.registry import StudioError

if TYPE_CHECKING:
    from torch import Tensor

    from laser_studio.debugger import Session
    from laser_studio.studio.run import Run

MOST_UPDATES = 192  # columns of the heat map: more than its pixels can tell apart
MOST_CELLS = 1_024
SHOWN_DIRECTIONS = 6


@settings(StudioError)
class CellRequest(InquiryRequest):
    """A page looks into one cell."""

    _: KW_ONLY
    cell: int = setting(low=0, high=MOST_CELLS - 1, help="Which cell, row by row from 0.")


@settings(StudioError)
class MixingRequest(CellRequest):
    """A page asks where a cell reads from at the step shown."""

    _: KW_ONLY
    layer: int = setting(default=0, low=0, high=63, help="Which layer of the net, from 0.")


@settings(StudioError)
class DirectionsRequest(InquiryRequest):
    """A page asks for the leading directions of a site at the step shown."""

    _: KW_ONLY
    site: str = setting(help="Name of the site.")
    flips: bool = setting(default=False, help="Whether to run the H cycle again without each direction.")


def _findings(context: Context, run: Run, request: InquiryRequest) -> dict[str, Any]:
    part = next((part for part in run.parts if isinstance(part, Findings)), None)
    if part is None:
        raise StudioError("this run was recorded elsewhere: nothing is looked for in it")
    return part.to_json(run)


def _cell(context: Context, run: Run, request: CellRequest) -> dict[str, Any]:
    from laser_studio.debugger.looking import latents, token_probabilities

    session = _session(run)
    found = token_probabilities(session, request.cell)
    # The newest updates, or those about the step shown where that lies before them.
    shown = sum(step <= request.at for step in found.steps)
    stop = len(found.steps) if shown > len(found.steps) - MOST_UPDATES else shown + MOST_UPDATES // 2
    part = slice(max(0, stop - MOST_UPDATES), stop)
    first = found.steps[part.start - 1] + 1 if part.start else 0
    last = found.steps[stop - 1] if stop < len(found.steps) else session.head
    states = {}
    for name in ("z_H", "z_L"):
        trail = latents(session, request.cell, name, first, last + 1)
        states[name] = {"steps": trail.steps, "values": _plain(trail.values)}
    return {
        "cell": request.cell,
        "labels": found.labels,
        "steps": found.steps[part],
        "values": _plain(found.values[part]),
        "first": first,
        "last": last,
        "states": states,
    }


def _mixing(context: Context, run: Run, request: MixingRequest) -> dict[str, Any]:
    from laser_studio.debugger.mixing import mixing

    found = mixing(_session(run), request.cell, request.at, request.layer)
    return {
        "kind": found.kind,
        "step": found.index,
        "layer": found.layer,
        "cell": found.cell,
        "prefix": found.prefix,
        "exact": _plain(found.exact.weights),
        "compressed": None if found.compressed is None else _plain(found.compressed.weights),
        "moved": None if found.moved is None else _plain(found.moved),
    }


def _directions(context: Context, run: Run, request: DirectionsRequest) -> dict[str, Any]:
    from laser_studio.debugger.looking import directions, removals

    session = _session(run)
    found = directions(session, request.site, request.at, SHOWN_DIRECTIONS)
    without = removals(session, found) if request.flips else None
    return {
        "site": found.site,
        "step": found.index,
        "activity": found.activity,
        "rank": found.rank,
        "kept": found.kept,
        "directions": [
            {
                "share": one.share,
                "cells": _plain(one.cells),
                "prefix": _plain(one.prefix),
                "flips": None if without is None else sorted(without[place].flips.items()),
                "kl": None if without is None else without[place].kl,
            }
            for place, one in enumerate(found.directions)
        ],
    }


def _session(run: Run) -> Session:
    from laser_studio.debugger import Session

    if not isinstance(run.session, Session):
        raise StudioError("this run was recorded elsewhere, and its model is not here: open a model to look into it")
    return run.session


def _plain(values: Tensor) -> Sequence[Any]:
    """As nested lists with four significant digits, which JSON can hold: what is not finite is None."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(one) for one in value]
        return float(f"{value:.4g}") if abs(value) < float("inf") else None

    plain: Sequence[Any] = short(values.tolist())
    return plain


INQUIRIES = {
    "deeper.findings": Inquiry(InquiryRequest, _findings),
    "deeper.cell": Inquiry(CellRequest, _cell),
    "deeper.mixing": Inquiry(MixingRequest, _mixing),
    "deeper.directions": Inquiry(DirectionsRequest, _directions),
}
