"""How well the tracker follows and what it costs, beside its rivals: `python -m laser_studio bench tracker` prints these tables.

Quality: per stream the energy that the basis in force keeps of a window, over what the window's best basis of the same rank
keeps. The basis in force is the one from before the window's own refresh, so a method can only know what went before. Cost: all
sides run in turn within each repeat, the order drawn anew, and the ratios of each repeat are kept: a machine that slows down
slows all of them.
"""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from laser_studio.device import resolve_device
from laser_studio.lab.rivals import ARMS, Rival
from laser_studio.lab.streams import Stream, StreamWindow
from laser_studio.laser import LaserPolicy, SiteTap, SubspaceTracker, TrackerEvent
from laser_studio.trm import TRM, TRMConfig

LEAST = 0.03  # seconds
MOST_LOOPS = 1_000


@dataclass(frozen=True)
class Quality:
    """One method on one group of streams at one rank ("16", or a part of the width where widths differ).

    mean: tracked over best, mean over streams and windows after the first; settled: the same without the window right after the
    first; worst: the least of any window; swaps: means at one, two and three refreshes after a jump, empty where there was none.
    """

    group: str
    rank: str
    arm: str
    streams: int
    mean: float
    settled: float
    worst: float
    swaps: tuple[float, ...]
    mean_rank: float


def measure_quality(streams: Iterable[Stream], arms: Mapping[str, Callable[[Tensor, int], Rival]] = ARMS) -> Iterator[Quality]:
    """Run every method over every stream; yields a group when it is done, methods in order."""
    groups: dict[str, list[Stream]] = {}
    for stream in streams:
        groups.setdefault(stream.group, []).append(stream)
    for group, members in groups.items():
        for place in range(len(members[0].ranks)):
            followed: dict[str, list[_Followed]] = {arm: [] for arm in arms}
            parts = set()
            for stream in members:
                windows, rank = list(stream.windows()), stream.ranks[place]
                width = windows[0].rows.shape[1]
                parts.add(str(rank) if len(members) == 1 else f"{rank / width:.1%}")
                for arm, start in arms.items():
                    followed[arm].append(_follow(windows, rank, start))
            for arm, runs in followed.items():
                ratios = [ratio for run in runs for ratio in run.ratios]
                after = [[run.ratios[swap + late] for run in runs for swap in run.swaps] for late in (1, 2, 3)]
                yield Quality(
                    group=group,
                    rank=" ".join(sorted(parts)),
                    arm=arm,
                    streams=len(members),
                    mean=statistics.fmean(ratios),
                    settled=statistics.fmean(ratio for run in runs for ratio in run.ratios[1:]),
                    worst=min(ratios),
                    swaps=tuple(statistics.fmean(late) for late in after if late),
                    mean_rank=statistics.fmean(rank for run in runs for rank in run.ranks),
                )


@dataclass(frozen=True)
class _Followed:
    ratios: list[float]
    ranks: list[int]
    swaps: list[int]  # places in `ratios` of windows right after a jump


def _follow(windows: list[StreamWindow], rank: int, start: Callable[[Tensor, int], Rival]) -> _Followed:
    method = start(windows[0].rows, rank)
    ratios, ranks, swaps = [], [], []
    for window in windows[1:]:
        rows, basis = window.rows, method.basis
        best = window.best_fidelity(basis.shape[1])
        ratios.append(float((rows.double() @ basis.double()).square().sum() / rows.double().square().sum()) / best)
        ranks.append(basis.shape[1])
        if window.swapped and len(ratios) + 3 < len(windows):
            swaps.append(len(ratios) - 1)
        method.update(rows)
    return _Followed(ratios, ranks, swaps)


@dataclass(frozen=True)
class Timing:
    """seconds: median; ratio: median over the repeats of this one's time over the reference's, with its quartiles."""

    name: str
    seconds: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name:44} {self.seconds * 1e3:9.3f} ms  {self.ratio:8.2f}× [{self.low:.2f}, {self.high:.2f}]"


def compare(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    seed: int = 0,
    after: Callable[[str], object] = lambda name: None,
    least: float = 0.0,
) -> list[Timing]:
    """Times of all `sides` run in turn, the first being the reference; the first turn of each goes unmeasured.

    after: told of each turn outside the time that is taken. least: seconds a turn shall take; a side that is quicker runs several times in
    a row and the mean counts, so that what is short is not timed with caches that the longer sides have filled.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    loops = dict.fromkeys(sides, 1)
    order = random.Random(seed)
    for repeat in range(repeats + 1):
        for name in order.sample(list(sides), len(sides)):
            _wait(device)
            start = time.perf_counter()
            for _ in range(loops[name]):
                sides[name]()
            _wait(device)
            seconds = (time.perf_counter() - start) / loops[name]
            if repeat:
                times[name].append(seconds)
            else:
                loops[name] = max(1, min(MOST_LOOPS, round(least / seconds)))
            after(name)
    reference = times[next(iter(sides))]
    found = []
    for name, own in times.items():
        ratios = [mine / other for mine, other in zip(own, reference, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive") if repeats > 1 else ratios * 3
        found.append(Timing(name, statistics.median(own), ratio, low, high))
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def update_cost(*, rows: int, dim: int, rank: int, repeats: int, device: str = "auto") -> list[Timing]:
    """One update (an observation that closes its window, F ≥ ε) against factorisations of the same rows made afresh."""
    where = resolve_device(device)
    x, tracker = _steady(rows, dim, rank, where)
    wide = x.double() if where.type != "mps" else x

    def gram(y: Tensor) -> Tensor:
        return torch.linalg.eigh(y.T @ y)[1]

    def low_rank() -> object:
        with torch.random.fork_rng(devices=[]):
            return torch.svd_lowrank(x, q=rank)

    return compare(
        {
            "update": lambda: tracker.observe(x),
            "SVD": lambda: torch.linalg.svd(x, full_matrices=False),
            "eigh of the Gram matrix, fp32": lambda: gram(x),
            "eigh of the Gram matrix, fp64": lambda: gram(wide),
            "svd_lowrank(q=k)": low_rank,
        },
        repeats,
        where,
        least=LEAST,
    )


def figure_cost(*, rows: int, dim: int, rank: int, repeats: int, device: str = "auto") -> list[Timing]:
    """One update alone, and with each of the figures that an event computes only when it is read."""
    where = resolve_device(device)
    x, tracker = _steady(rows, dim, rank, where)
    holding = _steady(rows, dim, rank, where, keep_windows=True)[1]

    def read(what: Callable[[TrackerEvent], object], of: SubspaceTracker = tracker) -> Callable[[], object]:
        return lambda: what(of.observe(x))

    return compare(
        {
            "update": read(lambda event: None),
            "… and fidelity": read(lambda event: event.fidelity),
            "… and centred fidelity": read(lambda event: event.centred_fidelity),
            "… and fidelity after": read(lambda event: event.fidelity_after),
            "… and angles to the basis before": read(lambda event: event.angles),
            "… and spectrum, from the sketch": read(lambda event: event.spectrum),
            "… and best fidelity, the window held": read(lambda event: event.best_fidelity, holding),
            "… and angles to the best, the window held": read(lambda event: event.best_angles, holding),
        },
        repeats,
        where,
        least=LEAST,
    )


def _steady(rows: int, dim: int, rank: int, device: torch.device, *, keep_windows: bool = False) -> tuple[Tensor, SubspaceTracker]:
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(rows, dim, generator=draw) * torch.logspace(0, -2, dim)).to(device)
    tracker = SubspaceTracker(dim, LaserPolicy(rank=rank, min_fidelity=0.1, refresh="step"), keep_windows=keep_windows)
    tracker.observe(x)
    return x, tracker


def all_sites_cost(
    *, hidden_size: int, seq_len: int, batch: int, rank: int, L_cycles: int, repeats: int, device: str = "auto", model: TRM | None = None
) -> list[Timing]:
    """H cycles of a two-layer TRM, L_cycles + 1 net applications each, bare and with every site tracked, each cycle a window.

    Three of them, a supervision step; on a GPU 48, a whole run of sixteen: it is behind the host, and what it still has to do after
    the last cycle belongs to all of them. seq_len: tokens with the prefix. Where `model` is given it is timed in place of a random one.
    The first windows are over before.
    """
    where = resolve_device(device)
    if model is None:
        config = TRMConfig(
            vocab_size=11,
            seq_len=seq_len,
            hidden_size=hidden_size,
            num_heads=max(1, hidden_size // 64),
            H_cycles=1,
            L_cycles=L_cycles,
            forward_dtype="float32",
            puzzle_emb_ndim=0,
        )
        model = TRM(config, seed=0).to(where).eval()
    net, length = model.net, seq_len
    draw = torch.Generator().manual_seed(0)
    z, injection = (torch.randn(batch, length, model.config.hidden_size, generator=draw).to(where) for _ in range(2))
    rope = model.rope(length, where)
    watched = copy.deepcopy(net)  # with patches of its own, so that neither side waits for them to be put in place
    tap = SiteTap(watched, LaserPolicy(rank=rank, min_fidelity=0.01)).attach()

    cycles = 48 if where.type == "cuda" else 3

    @torch.no_grad()
    def cycle(module: torch.nn.Module) -> None:
        state = z
        for _ in range(L_cycles + 1):
            state = module(state, injection, rope)

    def bare() -> None:
        for _ in range(cycles):
            cycle(net)

    def tracked() -> None:
        for _ in range(cycles):
            cycle(watched)
            tap.take()
            tap.refresh()

    tracked()
    return compare({"bare forward": bare, "with all sites tracked": tracked}, repeats, where)
