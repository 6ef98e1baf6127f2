"""How fast one supervision step is, beside the plain restatement of the official arithmetic, at the same weights and shapes.

Both run in turn in one process, the order of each pair drawn anew, and the ratio of each pair is kept: a machine that slows down
slows both. `python -m laser_studio bench forward` prints the table; nothing else calls this.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from laser_studio.device import resolve_device
from laser_studio.lab.plain_trm import PlainTRM, plain_weights
from laser_studio.trm import TRM, TRMConfig


@dataclass(frozen=True)
class ForwardTiming:
    """One case: what was run, how often, and how long it took.

    seconds, plain_seconds: medians of one supervision step of ours and of the plain code; speed: median over the pairs
    of plain / ours, so 1.1 means that ours needs 1/1.1 of the time; low, high: quartiles of the same ratio.
    """

    variant: str
    dtype: str
    batch: int
    hidden_size: int
    seq_len: int
    gradient: bool
    pairs: int
    device: str
    threads: int
    seconds: float
    plain_seconds: float
    speed: float
    low: float
    high: float

    def __str__(self) -> str:
        what = f"{self.variant:9} {self.dtype:8} batch {self.batch}, D {self.hidden_size}, T {self.seq_len}"
        backward = ", with backward" if self.gradient else ""
        times = f"{self.seconds * 1e3:.1f} ms, plain {self.plain_seconds * 1e3:.1f} ms"
        speed = f"{self.speed:.3f}× as fast [{self.low:.3f}, {self.high:.3f}]"
        return f"{what}{backward}: {times}, {speed} ({self.pairs} pairs, {self.device}, {self.threads} threads)"


def bench_forward(
    *,
    variants: Iterable[str] = ("attention", "mixer"),
    dtypes: Iterable[str] = ("float32", "bfloat16"),
    batches: Iterable[int] = (1, 8),
    hidden_size: int = 512,
    seq_len: int = 81,
    pairs: int = 7,
    gradient: bool = False,
    device: str = "auto",
    seed: int = 0,
    cycles: tuple[int, int] = (3, 6),
) -> Iterator[ForwardTiming]:
    """Time a supervision step of every combination; yields each result as it is ready.

    hidden_size: features D; seq_len: tokens T, behind a puzzle embedding of 16; pairs: timings of each side, after one
    unmeasured; gradient: with the backward pass; cycles: H_cycles, L_cycles. Weights and inputs are drawn from `seed`;
    the global random state stays untouched.
    """
    where = resolve_device(device)
    for variant in variants:
        for dtype in dtypes:
            config = TRMConfig(
                vocab_size=11,
                seq_len=seq_len,
                hidden_size=hidden_size,
                num_heads=max(1, hidden_size // 64),
                H_cycles=cycles[0],
                L_cycles=cycles[1],
                pos_encodings="none" if variant == "mixer" else "rope",
                mlp_t=variant == "mixer",
                puzzle_emb_ndim=hidden_size,
                forward_dtype=dtype,  # type: ignore[arg-type]  # checked by TRMConfig
            )
            for batch in batches:
                yield _time_case(config, variant, batch, pairs, gradient, where, seed)


def _time_case(config: TRMConfig, variant: str, size: int, pairs: int, gradient: bool, device: torch.device, seed: int) -> ForwardTiming:
    assert config.seq_len is not None
    model = TRM(config, seed=seed).to(device).eval()
    plain = PlainTRM(plain_weights(model), config, config.seq_len)
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randint(1, config.vocab_size, (size, config.seq_len), generator=draw).to(device)
    batch = {"inputs": inputs, "puzzle_identifiers": torch.zeros(size, dtype=torch.long, device=device)}
    with torch.no_grad():
        carry, _ = model(model.initial_carry(batch), batch)  # states as they are in the middle of a run

    def step(net: TRM | PlainTRM) -> Callable[[], None]:
        def run() -> None:
            with torch.set_grad_enabled(gradient):
                _, outputs = net(carry, batch)
                if gradient:
                    outputs.logits.float().square().mean().backward()
                    model.zero_grad(set_to_none=True)

        return run

    sides = step(model), step(plain)
    for side in sides:
        _timed(side, device)
    order = random.Random(seed)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for index in order.sample((0, 1), 2):  # neither side always finds the caches warm
            times[index].append(_timed(sides[index], device))
    ratios = [theirs / ours for ours, theirs in zip(*times, strict=True)]
    low, speed, high = statistics.quantiles(ratios, n=4, method="inclusive") if pairs > 1 else ratios * 3
    return ForwardTiming(
        variant=variant,
        dtype=config.forward_dtype,
        batch=size,
        hidden_size=config.hidden_size,
        seq_len=config.seq_len,
        gradient=gradient,
        pairs=pairs,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        seconds=statistics.median(times[0]),
        plain_seconds=statistics.median(times[1]),
        speed=speed,
        low=low,
        high=high,
    )


def _timed(run: Callable[[], None], device: torch.device) -> float:
    """Wall seconds of one run, the device's queue empty before and after."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
