"""What training on compressed activations saves, costs and changes, beside its rivals: all arms in one run, on one stream of steps.

An optimiser step is all of it: supervision step, loss, backward, AdamW, and the refresh of the bases. All arms take the same steps on
the same weights (the learning rate is zero, which costs the same); times are interleaved. Gradients are compared with plain autograd's
on steps that come after those the bases are from. `python -m laser_studio bench training` prints the table; the arms are in
`training_rivals`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from laser_studio.device import device_in_words, resolve_device
from laser_studio.errors import TrainingError
from laser_studio.files import atomic_path
from laser_studio.lab.bench_tracker import Timing, compare
from laser_studio.lab.front import Point, Tolerance, dominators
from laser_studio.lab.gradcheck import compare_gradients, gradients_of, mixed_steps
from laser_studio.lab.losses import forward_backward
from laser_studio.lab.tasks import Task
from laser_studio.lab.training_rivals import PLAIN, Arm, Budgeted, Place, make_arms
from laser_studio.laser.ledger import SavedMeter
from laser_studio.trm import TRM, Carry, TRMConfig

Step = tuple[Carry, dict[str, Tensor]]
Watch = Callable[[int, int, str], object]
CHECKED = 8  # steps whose gradients are compared
MOST_PUZZLES = 512  # to draw steps from, unless a batch is larger
FORMAT = "laser-studio-bench-training"


@dataclass(frozen=True)
class ArmResult:
    """One way to save.

    saved_bytes: kept on the device for backward in one step, bases and bookkeeping included, parameters excluded; saving: share of plain's
    that is gone; peak_bytes: most that a step took beyond what was there before it, by CUDA's allocator, None on other devices; cosine,
    worst: of the gradient with plain autograd's, over the steps compared; dominated_by: arms as good on bytes, time and cosine and better
    on one, none on the front.
    """

    name: str
    saved_bytes: int
    saving: float
    peak_bytes: int | None
    cosine: float
    worst: float
    timing: Timing
    dominated_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingBench:
    """One case; the first arm is plain autograd, the reference of the ratios.

    setup: what the case is, by name; left_out: arms that mean nothing here, and why; choices: what budgets led to, by arm.
    """

    case: str
    setup: dict[str, Any]
    arms: tuple[ArmResult, ...]
    left_out: dict[str, str]
    tolerance: Tolerance
    choices: dict[str, str]

    def __str__(self) -> str:
        rows = [_row(arm) for arm in self.arms]
        wide = [max(len(one) for one in column) for column in zip(HEAD, *rows, strict=True)]
        shown = [place for place, column in enumerate(zip(*rows, strict=True)) if any(column)]  # peaks are CUDA's only
        left = {0, len(HEAD) - 1}
        lines = ["  ".join(row[i].ljust(wide[i]) if i in left else row[i].rjust(wide[i]) for i in shown).rstrip() for row in (HEAD, *rows)]
        front = f"front: *, or which arm is as good on all three and better on one ({self.tolerance} counts as equal)"
        chosen = [f"{name}: {choice}" for name, choice in self.choices.items()]
        notes = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n  ".join([self.case, *lines, front, *notes, *chosen])


HEAD = ("arm", "saved MiB", "gone", "peak MiB", "cosine", "worst", "s/step", "ratio", "quartiles", "front")


def _row(arm: ArmResult) -> tuple[str, ...]:
    time, others = arm.timing, arm.dominated_by
    return (
        arm.name,
        f"{arm.saved_bytes / 2**20:.2f}",
        f"{arm.saving:.2%}",
        "" if arm.peak_bytes is None else f"{arm.peak_bytes / 2**20:.1f}",
        f"{arm.cosine:.5f}",
        f"{arm.worst:.5f}",
        f"{time.seconds:.3f}",
        f"{time.ratio:.3f}",
        f"{time.low:.3f}-{time.high:.3f}",
        "*" if not others else others[0] + (f" and {len(others) - 1} more" if len(others) > 1 else ""),
    )


def bench_training(
    model: TRM,
    task: Task,
    *,
    ranks: Sequence[str] = ("12.5%", "25%", "50%"),
    patterns: Iterable[str] = (),
    batch: int = 8,
    repeats: int = 5,
    settle: int = 8,
    seed: int = 0,
    tolerance: Tolerance | None = None,
    watch: Watch = lambda done, total, what: None,
) -> TrainingBench:
    """Measure every arm on `model`, whose weights stay as they are: trained ones, for cosines that mean anything.

    patterns: names of arms, see `make_arms`; settle: steps that make the bases before anything is measured; watch: told after each step
    run how many of how many there are, and which arm is at work. The global random state stays untouched. Raises `TrainingError`.
    """
    device = resolve_device(str(model.H_init.device))
    model.eval()  # nothing halts by itself
    config, length = model.config, task.seq_len + model.config.prefix_len
    made, left_out = make_arms(Place(model, length, batch), ranks, patterns)
    arms = {arm.name: arm for arm in made}
    settling = [arm for arm in made if arm.settles]
    total = len(settling) * settle + len(arms) * (CHECKED + 1 + repeats + 1)
    done = 0

    def ran(name: str) -> None:
        nonlocal done
        done += 1
        watch(done, total, name)

    watch(0, total, PLAIN)
    stream = mixed_steps(model, task.puzzles(max(batch, min(8 * batch, MOST_PUZZLES)), seed, "held-out"), batch, seed)
    steps = list(islice(stream, settle + CHECKED))
    early, late = steps[:-CHECKED], steps[-CHECKED:]
    runs = [partial(forward_backward, model, *step) for step in early]
    choices = {}
    for arm in made:
        if isinstance(arm, Budgeted):
            watch(done, total, f"{arm.name}, choosing")
            choices[arm.name] = str(arm.choose(runs))
    for arm in settling:
        for step in early:
            _optimiser_step(model, arm, step, None)
            ran(arm.name)
    wanted = [gradients_of(model, *step)[1] for step in late]
    cosines: dict[str, list[float]] = {name: [] for name in arms}
    peaks: dict[str, int | None] = {}
    for name, arm in arms.items():
        for step, right in zip(late, wanted, strict=True):
            model.zero_grad(set_to_none=True)
            with _Peak(device) as peak:
                found = gradients_of(model, *step, arm)[1]
            cosines[name].append(compare_gradients(found, right)[0].cosine)
            peaks[name] = peak.bytes
            del found
            ran(name)
    saved = {}
    for name, arm in arms.items():
        saved[name] = _saved(model, arm, early[-1])
        ran(name)
    adam = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)
    sides = {name: _timed(model, arm, early, adam) for name, arm in arms.items()}
    timings = {timing.name: timing for timing in compare(sides, repeats, device, seed, ran)}
    model.zero_grad(set_to_none=True)
    results = [
        ArmResult(name, saved[name], 1 - saved[name] / saved[PLAIN], peaks[name], fmean(cosines[name]), min(cosines[name]), timings[name])
        for name in arms
    ]
    equal = tolerance or Tolerance()
    who = dominators({one.name: Point(one.saved_bytes, one.timing.ratio, one.cosine) for one in results}, equal)
    setup = {
        "task": task.name,
        "tokens": length,
        "batch": batch,
        "unroll": config.L_cycles + 1,
        "ranks": list(ranks),
        "repeats": repeats,
        "settle": settle,
        "seed": seed,
        "device": device_in_words(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": asdict(config),
    }
    kind, dtype = "mixer" if config.mlp_t else "attention", config.forward_dtype
    case = (
        f"{kind} {dtype}, D {config.hidden_size}, {length} tokens, batch {batch}, cycles {config.H_cycles}×{config.L_cycles} "
        f"({config.L_cycles + 1} net applications with gradient), {repeats} repeats, {setup['device']}"
    )
    return TrainingBench(case, setup, tuple(replace(one, dominated_by=who[one.name]) for one in results), left_out, equal, choices)


def fresh_model(task: Task, *, variant: str, dtype: str, hidden_size: int, l_cycles: int, device: str = "auto", seed: int = 0) -> TRM:
    """A model of the official shape with weights as they start. Raises `CheckpointError` for a shape that cannot be, `TrainingError`."""
    if variant not in ("attention", "mixer"):
        raise TrainingError(f"a variant is attention or mixer, not {variant[:40]!r}")
    config = TRMConfig(
        vocab_size=task.vocab_size,
        seq_len=task.seq_len,
        num_puzzle_identifiers=task.identifiers(),
        hidden_size=hidden_size,
        num_heads=max(1, hidden_size // 64),
        L_cycles=l_cycles,
        mlp_t=variant == "mixer",
        puzzle_emb_ndim=hidden_size,
        forward_dtype=dtype,  # type: ignore[arg-type]  # checked by TRMConfig
    )
    return TRM(config, seed=seed).to(resolve_device(device))


def unroll(model: TRM, applications: int) -> None:
    """Make each of the model's cycles that many net applications long, the last with gradient. Raises `TrainingError` for fewer than 2."""
    if applications < 2:
        raise TrainingError(f"a cycle has at least 2 net applications, one of z_L and one of z_H, not {applications}")
    model.config = replace(model.config, L_cycles=applications - 1)


def save_benches(benches: Sequence[TrainingBench], path: Path) -> None:
    """Write cases as JSON, whole or not at all. Raises `TrainingError` where the file cannot be written."""
    record = {"format": FORMAT, "version": 1, "cases": [asdict(bench) for bench in benches]}
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as failure:
        raise TrainingError(f"{path} cannot be written: {failure.strerror}") from None


class _Peak:
    """Most bytes that CUDA's allocator handed out while entered, beyond those before; None on other devices."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self.bytes: int | None = None

    def __enter__(self) -> _Peak:
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device is not None:
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before


def _optimiser_step(model: TRM, arm: Arm, step: Step, adam: torch.optim.Optimizer | None) -> None:
    gradients_of(model, *step, arm)
    if adam is not None:
        adam.step()
    arm.step()


def _timed(model: TRM, arm: Arm, steps: Sequence[Step], adam: torch.optim.Optimizer) -> Callable[[], object]:
    places: Iterator[Step] = cycle(steps)
    return lambda: _optimiser_step(model, arm, next(places), adam)


def _saved(model: TRM, arm: Arm, step: Step) -> int:
    """Bytes kept between forward and backward, by hooks of one's own; what they cannot see the arm adds."""
    carry, batch = step
    meter = SavedMeter()
    outer, inner = (meter, arm) if arm.packs else (arm, meter)  # the innermost hooks are the ones that autograd asks
    with outer, inner:
        outputs = model(carry, batch)[1]
        beside, counted = arm.beside()
    excluded = [*model.parameters(), *model.buffers(), *(model.rope(carry.z_H.shape[1], carry.z_H.device) or ()), *counted]
    found = sum(meter.by_owners(excluded).values()) + beside
    arm.step()
    del outputs
    return found
