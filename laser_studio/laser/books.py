"""The books of a compression: what its ledger says, and the measurement of all bytes saved that part of it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from laser_studio.laser.chain import rebuilding
from laser_studio.laser.ledger import LedgerLine, SavedMeter, SiteLine, TotalLine, saved_for_backward
from laser_studio.laser.stored_site import StoredSite

CHAIN = "chain"  # who saves, for the meter, inside residual stages
Sites = Mapping[str, StoredSite]
_Key = tuple[str, tuple[int, ...], torch.dtype]


@dataclass
class Measured:
    """Bytes of one optimiser step: saved, and what it would save uncompressed; owners, rows: who saved what in the first, exact step, which
    can be seen only there, and how many rows each site had."""

    saved: int = 0
    full: int = 0
    owners: dict[frozenset[str], int] | None = None
    rows: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """From what `Books.state` gives; raises whatever it does where that is something else."""
        saved, full = (int(each) for each in state["bytes"])
        owners = state["owners"] and {frozenset(names): int(size) for names, size in state["owners"]}
        return cls(saved, full, owners, dict(state["rows"]))


class Books:
    """Bytes of the open optimiser step. Measuring costs hooks, so it is done only where ranks, or what is held, have changed.

    alone: linear layers outside residual stages, by name.
    """

    def __init__(self, model: nn.Module, alone: Mapping[str, nn.Module]) -> None:
        self._model, self._alone = model, alone
        self.meter: SavedMeter | None = None
        self._measured = Measured()
        self._setup: object = None
        self._plain_bytes: dict[_Key, tuple[int, int]] = {}  # of a chain by name and shape: of all applications once, of each
        self._plain_seen: set[_Key] = set()  # in this step
        self._plain_chains = 0
        self._shared: dict[int, int] = {}  # bytes of tensors that layers by themselves would keep, by address
        self._end_bytes: dict[str, int] = {}  # inputs of the last layers of stages: rebuilt, so nothing is kept of them
        self._whole: dict[str, LedgerLine] = {}  # places without a basis, by name
        self._norm_bytes = 0

    def share_with(self, other: Books) -> None:
        """What a chain would save uncompressed is measured once for both; they are of the same model."""
        self._plain_bytes = other._plain_bytes

    # A step

    def open(self, sites: Sites) -> None:
        """Forwards begin: measure them, where something has changed."""
        setup = _setup(sites)
        if self._setup != setup:
            self._setup = setup
            self.meter = SavedMeter(lambda: rebuilding.now)
            self.meter.__enter__()

    def close(
        self,
        sites: Sites,
        bases: Sequence[Tensor],
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forwards have ended: read the meter, if there is one. bases: what is counted beside the coefficients and may be seen by hooks."""
        meter, self.meter = self.meter, None
        if meter is not None:
            meter.__exit__(kind, error, trace)
            self._read(meter, sites, bases)

    def drop(self) -> None:
        """Measure no more, and forget what was seen."""
        if self.meter is not None:
            self.meter.__exit__(None, None, None)
        self.meter = None

    def leave_out(self, sites: Sites) -> None:
        """Do not measure until something changes."""
        self._setup = _setup(sites)

    def again(self) -> None:
        """Measure the next forwards whatever has changed."""
        self._setup = None

    def next_step(self) -> None:
        """The optimiser step is over."""
        self._end_bytes, self._whole, self._norm_bytes, self._plain_chains = {}, {}, 0, 0
        self._plain_seen.clear()
        self._shared.clear()

    def note_stage(self, last: str, inner: int, rows: int, itemsize: int, *, keeps_norm: bool) -> None:
        """One application of a stage: the name of its last layer, the width of that layer's input, rows of the norm, bytes of a value.

        keeps_norm: the norm's deviations are kept, not made again.
        """
        self._end_bytes[last] = self._end_bytes.get(last, 0) + rows * inner * itemsize
        self._norm_bytes += rows * 4 * keeps_norm  # one fp32 number per row

    def note_shared(self, x: Tensor) -> None:
        """An input of a layer by itself is kept as a chain has kept it; uncompressed it would be kept whole, once for all layers."""
        if self.meter is not None:
            self._shared[x.data_ptr()] = x.nbytes

    def note_whole(self, name: str, full: int, stored: int) -> None:
        """One application of a place without a basis: bytes of what the linear layers read there, and of what is kept of it."""
        line = LedgerLine(full, stored, 0)
        self._whole[name] = self._whole[name] + line if name in self._whole else line

    @property
    def holds_whole(self) -> bool:
        """Whether a place without a basis was seen in this step."""
        return bool(self._whole)

    def note_plain(self, name: str, plain: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor) -> None:
        """One application of a chain, while there is a meter: what it would save uncompressed, measured on it once per shape.

        What every application saves again (weights in another dtype) is told apart by a second run, and counted with the first.
        """
        if self.meter is None:
            return
        key = (name, tuple(x.shape), x.dtype)
        if key not in self._plain_bytes:
            constants = [each for each in _tensors((args, kwargs)) if not each.requires_grad]
            excluded = [*self._model.parameters(), *self._model.buffers(), *constants]
            once = saved_for_backward(lambda: plain(*args, **kwargs), {}, excluded).total
            twice = saved_for_backward(lambda: (plain(*args, **kwargs), plain(*args, **kwargs)), {}, excluded).total
            self._plain_bytes[key] = (2 * once - twice, twice - once)
        shared, own = self._plain_bytes[key]
        self._plain_chains += own + (0 if key in self._plain_seen else shared)
        self._plain_seen.add(key)

    def _read(self, meter: SavedMeter, sites: Sites, bases: Sequence[Tensor]) -> None:
        found = meter.by_owners([*self._model.parameters(), *self._model.buffers(), *bases])
        total, measured = sum(found.values()), self._measured
        if not total:
            self._setup = None
            return
        beside = sum(site.kept_beside for site in sites.values())
        if measured.owners is None:
            measured.owners, measured.rows = found, {name: site.rows for name, site in sites.items()}
        compressed = {name for name in self._alone if name in sites and sites[name].basis is not None}
        own = sum(sites[name].stored_bytes for name in compressed)
        freed = 0.0
        for owners, size in measured.owners.items():
            others = owners - {CHAIN}
            if others and others <= compressed:
                name = next(iter(others))
                freed += size * sites[name].rows / max(1, measured.rows.get(name, 0))
        own += found.get(frozenset({CHAIN}), 0)
        measured.saved, measured.full = total + beside, total - own + round(freed) + self._plain_chains + sum(self._shared.values())

    # What they say

    def lines(self, sites: Sites) -> tuple[TotalLine, dict[str, SiteLine]]:
        """Of the open step: the total without counts, and every site's line; places without a basis and last layers of stages included."""
        lines = {name: site.line() for name, site in sites.items()}
        lines |= {name: SiteLine(line.full_bytes, line.stored_bytes, 0, exact=True) for name, line in self._whole.items()}
        lines |= {name: SiteLine(size, 0, 0) for name, size in self._end_bytes.items()}
        full, stored, beside = (
            sum(getattr(line, name) for line in lines.values()) for name in ("full_bytes", "stored_bytes", "basis_bytes")
        )
        return TotalLine(full, stored, beside, norm_bytes=self._norm_bytes), lines

    def measured_in(self, total: TotalLine) -> TotalLine:
        """The total with what was measured last."""
        return replace(total, all_saved_bytes=self._measured.saved, all_full_bytes=self._measured.full)

    def state(self) -> dict[str, Any]:
        """Plain values of what was measured."""
        now = self._measured
        owners = None if now.owners is None else [[sorted(names), size] for names, size in now.owners.items()]
        return {"bytes": [now.saved, now.full], "owners": owners, "rows": dict(now.rows)}

    def take_up(self, measured: Measured) -> None:
        """Go on from what was measured; the next forwards are measured again."""
        self._measured, self._setup = measured, None


def _setup(sites: Sites) -> object:
    """What the bytes of a step depend on, batch aside."""
    return {name: (site.tracker.rank, site.basis is None, site.tracker.holds_window) for name, site in sites.items()}


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
