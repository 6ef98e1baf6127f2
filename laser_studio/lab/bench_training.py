"""What training on compressed activations saves, costs and changes, beside its rivals: all arms in one run, on one stream of steps.

An optimiser step is all of it: supervision step, loss, backward, AdamW, and the refresh of the bases. All arms take the same steps on
the same weights (the learning rate is zero, which costs the same); times are interleaved. Gradients are compared with plain autograd's
on steps that come after those the bases are from. `python -m laser_studio bench training` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from laser_studio.device import device_in_words, resolve_device
from laser_studio.lab.bench_tracker import Timing, compare
from laser_studio.lab.gradcheck import compare_gradients, gradients_of, mixed_steps
from laser_studio.lab.tasks import Task
from laser_studio.laser import Compression, LaserPolicy, compress
from laser_studio.laser.ledger import SavedMeter
from laser_studio.trm import TRM, Carry, TRMConfig

Step = tuple[Carry, dict[str, Tensor]]
PLAIN = "plain autograd"
CHECKPOINTED = "checkpoint of each net application"
CHECKED = 2  # steps whose gradients are compared
OFF: dict[str, dict[str, object]] = {"*": {"enabled": False}}


@dataclass(frozen=True)
class ArmResult:
    """One way to save. saved_bytes: kept for backward in one step, bases and bookkeeping included, parameters excluded; saving: share of
    plain's that is gone; cosine, worst: of the gradient with plain autograd's, over the steps compared."""

    name: str
    saved_bytes: int
    saving: float
    cosine: float
    worst: float
    timing: Timing


@dataclass(frozen=True)
class TrainingBench:
    """One case; the first arm is plain autograd, the reference of the ratios."""

    case: str
    arms: tuple[ArmResult, ...]

    def __str__(self) -> str:
        head = f"{self.case}\n  {'arm':38} {'saved MiB':>10} {'gone':>7} {'cosine':>8} {'worst':>8} {'s/step':>8} {'ratio':>7}  quartiles"
        return "\n".join([head, *(_row(arm) for arm in self.arms)])


def _row(arm: ArmResult) -> str:
    time = arm.timing
    return (
        f"  {arm.name:38} {arm.saved_bytes / 2**20:10.2f} {arm.saving:7.2%} {arm.cosine:8.5f} {arm.worst:8.5f} {time.seconds:8.3f} "
        f"{time.ratio:7.3f}  {time.low:.3f}-{time.high:.3f}"
    )


def bench_training(
    model: TRM,
    task: Task,
    *,
    ranks: Sequence[str] = ("12.5%", "25%", "50%"),
    batch: int = 8,
    repeats: int = 5,
    settle: int = 4,
    seed: int = 0,
) -> TrainingBench:
    """Measure every arm on `model`, whose weights stay as they are: trained ones, for cosines that mean anything.

    settle: steps that make the bases before anything is measured. The global random state stays untouched.
    """
    device = resolve_device(str(model.H_init.device))
    model.eval()  # nothing halts by itself
    stream = mixed_steps(model, task.puzzles(8 * batch, seed, "held-out"), batch, seed)
    steps = list(islice(stream, settle + CHECKED))
    early, late = steps[:-CHECKED], steps[-CHECKED:]
    arms: dict[str, Any] = {PLAIN: nullcontext(), CHECKPOINTED: _Checkpointed(model)}
    arms |= {name: compress(model, policy, mode, storage=storage) for name, policy, mode, storage in _policies(ranks)}  # type: ignore[arg-type]
    for arm in arms.values():
        for step in early:
            _optimiser_step(model, arm, step, None)
    wanted = [gradients_of(model, *step)[1] for step in late]
    cosines = {
        name: [compare_gradients(gradients_of(model, *step, arm)[1], right)[0].cosine for step, right in zip(late, wanted, strict=True)]
        for name, arm in arms.items()
    }
    saved = {name: _saved(model, arm, early[-1]) for name, arm in arms.items()}
    adam = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)
    sides = {name: _timed(model, arm, early, adam) for name, arm in arms.items()}
    timings = {timing.name: timing for timing in compare(sides, repeats, device, seed)}
    model.zero_grad(set_to_none=True)
    config, dtype = model.config, str(model.forward_dtype).removeprefix("torch.")
    length = task.seq_len + config.prefix_len
    kind = "mixer" if config.mlp_t else "attention"
    case = (
        f"{kind} {dtype}, D {config.hidden_size}, {length} tokens, batch {batch}, cycles {config.H_cycles}×{config.L_cycles}, "
        f"{repeats} repeats, {device_in_words(device)}"
    )
    full = saved[PLAIN]
    found = (ArmResult(name, saved[name], 1 - saved[name] / full, fmean(cosines[name]), min(cosines[name]), timings[name]) for name in arms)
    return TrainingBench(case, tuple(found))


def fresh_model(task: Task, *, variant: str, dtype: str, hidden_size: int, l_cycles: int, device: str = "auto", seed: int = 0) -> TRM:
    """A model of the official shape with weights as they start. Raises `CheckpointError` for a shape that cannot be."""
    config = TRMConfig(
        vocab_size=task.vocab_size,
        seq_len=task.seq_len,
        hidden_size=hidden_size,
        num_heads=max(1, hidden_size // 64),
        L_cycles=l_cycles,
        mlp_t=variant == "mixer",
        puzzle_emb_ndim=hidden_size,
        forward_dtype=dtype,  # type: ignore[arg-type]  # checked by TRMConfig
    )
    return TRM(config, seed=seed).to(resolve_device(device))


def _policies(ranks: Sequence[str]) -> Iterator[tuple[str, LaserPolicy, str, str]]:
    yield "rebuild only", LaserPolicy(sites=OFF), "block", "exact"
    yield "rebuild from int8", LaserPolicy(sites=OFF), "block", "int8"
    for rank in ranks:
        policy = LaserPolicy(rank=rank, max_rank=rank, min_fidelity=0)
        yield f"linear, rank {rank}", policy, "linear", "exact"
        yield f"block, rank {rank}", policy, "block", "exact"
        yield f"block, rank {rank}, int8", policy, "block", "int8"


class _Checkpointed:
    """While entered, each application of the net with gradient keeps only its inputs and is run again in backward."""

    def __init__(self, model: TRM) -> None:
        self._net = model.net
        self.inputs: list[Tensor] = []  # of the last time it was entered

    def __enter__(self) -> None:
        plain = self._net.forward
        self.inputs = []

        def forward(*args: Any) -> Tensor:
            if not torch.is_grad_enabled():
                return plain(*args)
            self.inputs += [each for each in args if isinstance(each, Tensor)]
            return checkpoint(plain, *args, use_reentrant=False, preserve_rng_state=False)

        self._net.__dict__["forward"] = forward

    def __exit__(self, *_: object) -> None:
        self._net.__dict__.pop("forward", None)


def _optimiser_step(model: TRM, arm: Any, step: Step, adam: torch.optim.Optimizer | None) -> None:
    gradients_of(model, *step, arm)
    if adam is not None:
        adam.step()
    if isinstance(arm, Compression):
        arm.step()


def _timed(model: TRM, arm: Any, steps: Sequence[Step], adam: torch.optim.Optimizer) -> Callable[[], object]:
    places = cycle(steps)
    return lambda: _optimiser_step(model, arm, next(places), adam)


def _saved(model: TRM, arm: Any, step: Step) -> int:
    """Bytes kept between forward and backward, by hooks of one's own; what they cannot see is added: bases, inputs of checkpoints."""
    carry, batch = step
    with arm, SavedMeter() as meter:
        outputs = model(carry, batch)[1]
    excluded = [*model.parameters(), *model.buffers(), *(model.rope(carry.z_H.shape[1], carry.z_H.device) or ())]
    beside, kept = 0, []
    if isinstance(arm, Compression):
        beside = arm.ledger().total.basis_bytes
        excluded += arm.bases
        arm.step()
    elif isinstance(arm, _Checkpointed):
        kept = arm.inputs
    del outputs
    left_out = {each.untyped_storage().data_ptr() for each in excluded}
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in kept}
    inputs = sum(size for address, size in storages.items() if address not in left_out)
    return sum(meter.by_owners(excluded).values()) + beside + inputs
