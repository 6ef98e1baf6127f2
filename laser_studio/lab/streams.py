"""Streams of activations for trackers: seeded ones whose best basis is known, and those of a model, recorded while it solves puzzles.

A stream is a sequence of windows, a window a few observations (N, D) of one site. The seeded ones have exact covariances: a window's best
basis is known by construction and not blurred by sampling. `bench_tracker` and the tests run trackers over them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from laser_studio.errors import LaserStudioError
from laser_studio.laser import find_sites
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM

PARTS = 5  # observations of a window, as in an H cycle of four L cycles


@dataclass(frozen=True, eq=False)
class StreamWindow:
    """One window. observations: each (N, D) fp32; best: share of the energy of its best basis by rank, (≤ D,) fp64, from 1 on;
    swapped: the stream jumped just before it."""

    observations: tuple[Tensor, ...]
    best: Tensor
    swapped: bool = False

    @property
    def rows(self) -> Tensor:
        """All of it, (ΣN, D)."""
        return torch.cat(self.observations)

    def best_fidelity(self, rank: int) -> float:
        """The share that the best basis of this rank keeps."""
        return float(self.best[min(rank, len(self.best)) - 1])


@dataclass(frozen=True)
class Stream:
    """A named stream; `windows()` starts it anew, the same every time. ranks: those it is meant to be tracked at; group: streams
    of one group are reported together."""

    name: str
    group: str
    ranks: tuple[int, ...]
    windows: Callable[[], Iterator[StreamWindow]]


def seeded_streams(*, dim: int = 64, rank: int = 16, rows: int = 60, windows: int = 24, seed: int = 0) -> list[Stream]:
    """The streams of known truth, at width `dim`: `windows` windows of five observations of `rows` rows. Needs 4·rank ≤ dim ≤ 5·rows."""
    if not 4 * rank <= dim <= PARTS * rows:
        raise LaserStudioError(f"streams need 4·rank ≤ dim ≤ {PARTS}·rows, got rank {rank}, dim {dim}, rows {rows}")

    def normal(*shape: int, key: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(1_000 * seed + key), dtype=torch.float64)

    def frame(key: int) -> Tensor:  # (D, D) orthogonal
        return torch.linalg.qr(normal(dim, dim, key=key))[0]

    def window(directions: Tensor, sizes: Tensor, number: int, swapped: bool = False) -> StreamWindow:
        """Rows with covariance directions·diag(sizes²)·directionsᵀ, exactly: no sampling error between truth and window."""
        left = torch.linalg.qr(normal(PARTS * rows, len(sizes), key=100 + number))[0]
        x = (math.sqrt(PARTS * rows) * left * sizes @ directions.T).float()
        energies = sizes.square().sort(descending=True).values
        return StreamWindow(x.split(rows), energies.cumsum(0) / energies.sum(), swapped)

    decay = torch.logspace(0, -1.5, dim, dtype=torch.float64)
    flat = torch.ones(dim, dtype=torch.float64)
    half = windows // 2

    def turning(degrees: float) -> Iterator[StreamWindow]:
        """Each of the leading `rank` directions turns towards one of the weakest, by `degrees` from window to window."""
        fixed = frame(1)
        lead, weak = fixed[:, :rank], fixed[:, dim - rank :]
        for number in range(windows):
            angle = math.radians(degrees * number)
            turned = lead * math.cos(angle) + weak * math.sin(angle), weak * math.cos(angle) - lead * math.sin(angle)
            yield window(torch.cat((turned[0], fixed[:, rank : dim - rank], turned[1]), 1), decay, number)

    def swap() -> Iterator[StreamWindow]:
        for number in range(windows):
            yield window(frame(2 + (number >= half)), decay, number, number == half)

    def rank_change() -> Iterator[StreamWindow]:
        fixed = frame(4)
        for number in range(windows):
            stage = 3 * number // windows
            sizes = torch.where(torch.arange(dim) < (rank // 2, 2 * rank, rank)[stage], 1.0, 0.01) * torch.linspace(0.7, 1, dim).double()
            yield window(fixed, sizes, number)

    def flat_spectrum() -> Iterator[StreamWindow]:
        for number in range(windows):
            yield window(frame(5), flat, number)

    def ill_conditioned() -> Iterator[StreamWindow]:
        sizes = torch.logspace(0, -8, dim, dtype=torch.float64)
        for number in range(windows):
            yield window(frame(6 + (number >= half)), sizes, number, number == half)

    def trap() -> Iterator[StreamWindow]:
        """Q comes to span coordinates that stay exactly invariant; what is new is exactly orthogonal to them, so XᵀXQ never sees it."""
        for number in range(windows):
            x = torch.zeros(PARTS * rows, dim, dtype=torch.float64)
            x[:, :rank] = normal(PARTS * rows, rank, key=100 + number)
            if number >= half:
                x[-rows:] = 0
                x[-rows:, rank : rank + 2] = 5 * normal(rows, 2, key=300 + number)
            yield measured(x.float().split(rows), number == half)

    kinds: dict[str, Callable[[], Iterator[StreamWindow]]] = {
        "slow rotation": lambda: turning(1.0),
        "abrupt swap": swap,
        "rank change": rank_change,  # half as many directions as the basis has, then twice as many (the new ones stronger), then as many
        "flat spectrum": flat_spectrum,
        "ill-conditioned": ill_conditioned,  # sixteen decades of energy, swapped in the middle
        "orthogonal trap": trap,
        "long drift": lambda: turning(8.0),  # past what an incremental SVD can forget
    }
    return [Stream(name, name, (rank,), kind) for name, kind in kinds.items()]


def measured(observations: Sequence[Tensor], swapped: bool = False) -> StreamWindow:
    """A window whose best shares are measured, by SVD."""
    energies = torch.linalg.svdvals(torch.cat(list(observations)).double()).square()
    return StreamWindow(tuple(observations), energies.cumsum(0) / energies.sum(), swapped)


def record_streams(model: TRM, puzzles: Iterable[Puzzle]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every site's inputs over whole runs, to the trained depth: per puzzle its name and, by site, (steps, P + T, D) fp32 on the CPU.

    The model must not be shared while it records: hooks sit on its layers.
    """
    sites = find_sites(model.net)
    seen: dict[str, list[Tensor]] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            x = args[0] if args else kwargs["input"]
            seen.setdefault(name, []).append(x.detach().float().cpu().reshape(-1, x.shape[-1]).clone())

        return hook

    for puzzle in puzzles:
        ids = torch.as_tensor(get_domain(puzzle.domain).encode(puzzle)).long().view(1, -1).to(model.H_init.device)
        batch = {"inputs": ids, "puzzle_identifiers": torch.zeros(1, dtype=torch.long, device=ids.device)}
        seen.clear()
        handles = [layer.register_forward_pre_hook(hook_for(name), with_kwargs=True) for name, layer in sites.items()]
        try:
            with torch.no_grad():
                carry = model.initial_carry(batch)
                for _ in range(model.config.halt_max_steps):
                    for step in model.recurse(carry, batch):
                        last = step
                    assert last.carry is not None
                    carry = last.carry.going_on()
        finally:
            for handle in handles:
                handle.remove()
        yield puzzle.name, {name: torch.stack(seen[name]) for name in sites}


def save_streams(runs: Iterable[tuple[str, dict[str, Tensor]]], path: Path, *, cycle: int) -> int:
    """Write recorded runs; cycle: net applications of an H cycle. Returns the number of runs."""
    tensors: dict[str, Tensor] = {}
    names: list[str] = []
    for number, (name, sites) in enumerate(runs):
        names.append(name)
        tensors |= {f"{number}/{site}": x for site, x in sites.items()}
    save_file(tensors, path, {"format": "laser-studio-streams", "cycle": str(cycle), "runs": json.dumps(names)})
    return len(names)


def load_streams(path: Path) -> list[Stream]:
    """The recorded streams of a file, a window per H cycle, to be tracked at a quarter and an eighth of their width."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            if facts.get("format") != "laser-studio-streams":
                raise LaserStudioError(f"{path.name} holds no recorded streams: record some with `bench record-streams`")
            cycle, names, keys = int(facts["cycle"]), json.loads(facts["runs"]), list(file.keys())
            split = [(key, *key.split("/", 1)) for key in keys]
            return [_recorded(f"{names[int(run)]} {site}", file.get_tensor(key), cycle) for key, run, site in split]
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise LaserStudioError(f"{path.name} cannot be read as recorded streams: {error}") from None


def recorded_streams(runs: Iterable[tuple[str, dict[str, Tensor]]], *, cycle: int) -> list[Stream]:
    """The same, straight from `record_streams`."""
    return [_recorded(f"{name} {site}", x, cycle) for name, sites in runs for site, x in sites.items()]


def _recorded(name: str, x: Tensor, cycle: int) -> Stream:
    def windows() -> Iterator[StreamWindow]:
        for part in x.split(cycle):
            yield measured(part.unbind())

    dim = x.shape[-1]
    return Stream(name, "recorded", (max(dim // 4, 1), max(dim // 8, 1)), windows)
