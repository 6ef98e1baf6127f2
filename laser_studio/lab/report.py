"""What an evaluation found, as a record that is written, read back and drawn. How it is measured is in `examine`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from laser_studio.errors import ReportError
from laser_studio.files import atomic_path

REPORT_FILE = "evaluation.json"
FORMAT = "laser-studio-evaluation"
MAX_BYTES = 4 * 2**20
MAX_COUNT = 2**53  # what a page can count to
MAX_TEXT = 300  # characters
_SLACK = 1e-6  # of shares that were summed

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Shares = tuple[float, ...]  # per supervision step, each in [0, 1]


@dataclass(frozen=True)
class Group:
    """Held-out puzzles of one difficulty: those of the seeds from `first_seed` on."""

    difficulty: Literal["easy", "medium", "hard"]
    puzzles: int
    first_seed: int

    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Arm:
    """One way the model was run. rank: "" for exact activations, else the rank whose reconstruction every site read.

    exact, cell: per group, per supervision step, the share of puzzles all of whose cells are right, and of cells. changed: per group, the
    share of puzzles whose last answer differs from that of exact activations. energy: fidelity of the bases in force, mean
    over sites and windows after the first; None for exact activations.
    """

    rank: str
    exact: tuple[Shares, ...]
    cell: tuple[Shares, ...]
    changed: Shares
    energy: float | None = None

    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Bin:
    """Answers whose predicted probability of being right, sigmoid(q_halt), lies in [low, high): how many, its mean, the share right."""

    low: float
    high: float
    count: int
    predicted: float
    right: float

    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Halting:
    """Whether q_halt knows when the answer is right, over all puzzles and supervision steps of exact activations.

    error: expected calibration error, Σ count/N · |predicted − right| over `bins`. steps, exact: mean supervision steps and exact share,
    had each puzzle stopped at its first q_halt > 0 (at the last step where there was none).
    """

    bins: tuple[Bin, ...]
    error: float
    steps: float
    exact: float

    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Failure:
    """A puzzle whose last answer is wrong.

    wrong: its wrong cells; confidence: sigmoid(q_halt) then; was_right: whether an earlier answer was right.
    """

    puzzle: str
    difficulty: Literal["easy", "medium", "hard"]
    wrong: int
    confidence: float
    was_right: bool

    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Report:
    """An evaluation. solved_at: per group, the puzzles whose answer is right from supervision step s on to the end (place s − 1), and
    never (last place). measured: ISO date; device and command: where and how to do it again."""

    task: str
    supervision_steps: int
    groups: tuple[Group, ...]
    arms: tuple[Arm, ...]
    halting: Halting
    solved_at: tuple[tuple[int, ...], ...]
    failures: tuple[Failure, ...]
    measured: str
    device: str
    command: str
    format: Literal["laser-studio-evaluation"] = FORMAT  # type: ignore[assignment]
    version: Literal[1] = 1

    __pydantic_config__ = _STRICT

    @property
    def puzzles(self) -> int:
        """Puzzles of all groups."""
        return sum(group.puzzles for group in self.groups)

    def exact(self, arm: Arm) -> float:
        """Exact share over all groups after the last supervision step."""
        return sum(curve[-1] * group.puzzles for curve, group in zip(arm.exact, self.groups, strict=True)) / max(1, self.puzzles)


_ADAPTER = TypeAdapter(Report)


def save_report(report: Report, path: Path) -> None:
    """Write a report as JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_report(path: Path) -> Report:
    """Read what `save_report` wrote. Raises `ReportError`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReportError(f"{path.name} is larger than {MAX_BYTES // 2**20} MiB: no report of ours")
        report = _ADAPTER.validate_json(path.read_bytes())
    except OSError as failure:
        raise ReportError(f"{path.name} cannot be read: {failure.strerror}") from None
    except ValidationError:
        raise ReportError(
            f"{path.name} is no evaluation report of this version: make it anew with `python -m laser_studio report`"
        ) from None
    steps, groups = report.supervision_steps, len(report.groups)
    curves = [curve for arm in report.arms for curves in (arm.exact, arm.cell) for curve in curves]
    tables = [
        *(arm.exact for arm in report.arms),
        *(arm.cell for arm in report.arms),
        *(arm.changed for arm in report.arms),
        report.solved_at,
    ]
    if not _in_range(report):
        raise ReportError(
            f"{path.name} holds shares outside 0 to 1 or counts beyond reason: make it anew with `python -m laser_studio report`"
        )
    if not report.arms or any(len(curve) != steps for curve in curves) or any(len(table) != groups for table in tables):
        raise ReportError(f"{path.name} contradicts itself: its curves do not have one value per supervision step and difficulty")
    return report


def _in_range(report: Report) -> bool:
    """Whether every number is one that `examine` can have found, and every text fit to show."""
    shares = [
        *(share for arm in report.arms for table in (*arm.exact, *arm.cell, arm.changed) for share in table),
        *(arm.energy for arm in report.arms if arm.energy is not None),
        *(share for one in report.halting.bins for share in (one.low, one.high, one.predicted, one.right)),
        *(report.halting.error, report.halting.exact),
        *(failure.confidence for failure in report.failures),
    ]
    counts = [
        *(count for group in report.groups for count in (group.puzzles, group.first_seed)),
        *(one.count for one in report.halting.bins),
        *(count for table in report.solved_at for count in table),
        *(failure.wrong for failure in report.failures),
        report.supervision_steps,
        report.halting.steps,
    ]
    texts = [
        report.task,
        report.measured,
        report.device,
        *(failure.puzzle for failure in report.failures),
        *(arm.rank for arm in report.arms),
    ]
    plain = all(text.isprintable() and len(text) <= MAX_TEXT for text in texts) and len(report.command) <= 10 * MAX_TEXT
    return plain and all(-_SLACK <= share <= 1 + _SLACK for share in shares) and all(0 <= count <= MAX_COUNT for count in counts)


def wilson(successes: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (low, high) of a share seen as `successes` of `count` (E. B. Wilson, JASA 1927); (0, 1) for none."""
    if count < 1:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / count, z * z / count
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)
    return min(max(0.0, low), share), max(min(1.0, high), share)  # rounding must not put the share itself outside
