"""What the debugger shows on screen, over many puzzles: net saving, fidelity, resets and tracker cost of whole runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from laser_studio.debugger import Measures, Session
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM


@dataclass(frozen=True)
class DemoRun:
    """One run to the trained depth. saving: net, of the history ledger; fidelity: mean over sites and steps after the first
    window; retained: mean over sites at the end; tracker_share: tracker seconds over all other seconds of the steps; of_best: energy
    kept over that of the window's best basis of the same rank, mean over sites and windows after the first, where it was asked for."""

    puzzle: str
    solved_at: int | None
    saving: float
    training_saving: float
    fidelity: float
    retained: float
    resets: int
    growths: int
    break_even: int | None
    tracker_share: float
    of_best: float | None


def run_demo(model: TRM, puzzles: Iterable[Puzzle], policy: LaserPolicy, *, best: bool = False) -> Iterator[DemoRun]:
    """Run every puzzle to the end; yields one record each. best: also compare each window with its best basis (an SVD each)."""
    for puzzle in puzzles:
        session = Session(model, puzzle, policy=policy, measures=Measures(best=best))
        last = session.run()
        frames = session.frames[1:]
        started = next((f.index for f in frames if any(s.rank for s in f.sites.values())), last.index)
        shares = [site.fidelity for frame in frames if frame.index > started for site in frame.sites.values()]
        ratios = [
            site.window_fidelity / site.best
            for frame in frames
            if frame.index > started
            for site in frame.sites.values()
            if site.window_fidelity is not None and site.best
        ]
        tracker = sum(frame.tracker_seconds for frame in frames)
        yield DemoRun(
            puzzle=puzzle.name,
            solved_at=next((frame.index for frame in frames if frame.solved), None),
            saving=last.history.saving,
            training_saving=last.training.saving,
            fidelity=statistics.fmean(shares),
            retained=statistics.fmean(site.retained for site in last.sites.values()),
            resets=last.resets,
            growths=sum(event.kind == "grew" for frame in frames for event in frame.events),
            break_even=last.break_even,
            tracker_share=tracker / max(sum(frame.seconds for frame in frames) - tracker, 1e-9),
            of_best=statistics.fmean(ratios) if ratios else None,
        )
        session.close()
