"""Honest bytes: one ledger line, and the measurement of what autograd really saves for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

Count = Literal["misses", "growths", "resets"]
COUNTS: tuple[Count, ...] = get_args(Count)


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """Bytes of one site, or of all together: what would be kept in full, what is stored instead, and the bases that cost extra."""

    full_bytes: int
    stored_bytes: int
    basis_bytes: int

    @property
    def saving(self) -> float:
        """Net share saved, 1 − (stored + basis) / full; negative while the bases cost more than they save, 0 of nothing."""
        return 1 - (self.stored_bytes + self.basis_bytes) / self.full_bytes if self.full_bytes else 0.0

    def __add__(self, other: LedgerLine) -> LedgerLine:
        return LedgerLine(self.full_bytes + other.full_bytes, self.stored_bytes + other.stored_bytes, self.basis_bytes + other.basis_bytes)


EMPTY = LedgerLine(0, 0, 0)


@dataclass(frozen=True, slots=True)
class SiteLine(LedgerLine):
    """One site in one optimiser step of compressed training; basis_bytes is all that is kept beside the coefficients.

    rank: of the basis, 0 before there is one, or where there is none; fidelity: of the last closed window, energy share or what the policy
    measures; exact: whether X was kept whole, in whatever storage; misses, growths, resets: so far.
    """

    rank: int = 0
    fidelity: float = 1.0
    exact: bool = False
    misses: int = 0
    growths: int = 0
    resets: int = 0


@dataclass(frozen=True, slots=True)
class TotalLine(LedgerLine):
    """All sites together, and all bytes that autograd saves for backward in one optimiser step.

    all_saved_bytes: measured by saved-tensor hooks, plus what is kept where they cannot see it (bases, WQ, sketches); 0 until measured.
    all_full_bytes: what the same step would save uncompressed. norm_bytes: the reciprocal deviations of norms, part of all_saved_bytes.
    steps: optimiser steps so far; misses, growths, resets: over all sites so far; refresh_seconds, reset_seconds: time on the
    host so far in steps without and with a reset.
    """

    all_saved_bytes: int = 0
    all_full_bytes: int = 0
    norm_bytes: int = 0
    steps: int = 0
    misses: int = 0
    growths: int = 0
    resets: int = 0
    refresh_seconds: float = 0.0
    reset_seconds: float = 0.0

    @property
    def all_saved_saving(self) -> float:
        """Net share of all saved bytes that is gone; 0 until measured."""
        return 1 - self.all_saved_bytes / self.all_full_bytes if self.all_full_bytes else 0.0

    def per_thousand_steps(self, count: Count) -> float:
        """How often it happened in 1,000 optimiser steps, over all sites."""
        return 1_000 * getattr(self, count) / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class CompressionLedger:
    """The bytes of one optimiser step."""

    total: TotalLine
    sites: Mapping[str, SiteLine]


class SavedMeter:
    """Bytes saved for backward while entered, each storage once, by who saved them; nothing is kept alive by counting it.

    pauses: asked at each tensor, true where it is not to be counted. `owner` is who saves at the moment, "" outside all sites.
    """

    def __init__(self, pauses: Callable[[], bool] = lambda: False) -> None:
        self.owner = ""
        self._pauses = pauses
        self._storages: dict[int, tuple[StorageWeakRef, int, int]] = {}  # by identity, which a weak reference keeps from being used again
        self._owners: dict[int, set[str]] = {}
        self._hooks: Any = None

    def __enter__(self) -> SavedMeter:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.__exit__(*error)

    def by_owners(self, excluded: Iterable[Tensor]) -> dict[frozenset[str], int]:
        """Bytes by the set of those who saved a storage; those of `excluded` are left out."""
        left_out = {tensor.untyped_storage().data_ptr() for tensor in excluded}
        bytes_of: dict[frozenset[str], int] = {}
        for key, (_, address, size) in self._storages.items():
            if address not in left_out:
                owners = frozenset(self._owners[key])
                bytes_of[owners] = bytes_of.get(owners, 0) + size
        return bytes_of

    def _pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        if not self._pauses():
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
            self._storages.setdefault(reference.cdata, (reference, storage.data_ptr(), storage.nbytes()))
            self._owners.setdefault(reference.cdata, set()).add(self.owner)
        return tensor.detach(), tensor._version  # the tensor itself would hold its own graph in a circle


def _unpack(saved: tuple[Tensor, int]) -> Tensor:
    """With hooks autograd leaves this check out."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation")
    return tensor


@dataclass(frozen=True)
class SavedBytes:
    """What one differentiable computation keeps for backward, parameters excluded, each storage counted once.

    total: all of it; by_site: bytes that only this site's linear layer keeps, so that storing Z instead would free them.
    A site's input that another operation keeps as well (the attention output is o_proj's input) is not in `by_site`.
    """

    total: int
    by_site: Mapping[str, int]


def saved_for_backward(compute: Callable[[], object], sites: Mapping[str, nn.Module], parameters: Iterable[Tensor]) -> SavedBytes:
    """Run `compute` with gradient enabled and measure, by saved-tensor hooks, what autograd keeps for its backward."""
    excluded = {p.untyped_storage().data_ptr() for p in parameters}
    owners: dict[int, set[str]] = {}
    storages: dict[int, torch.UntypedStorage] = {}  # held until the end: a freed address could be used again
    current = ""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key not in excluded:
            storages[key] = storage
            owners.setdefault(key, set()).add(current)
        return tensor

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal current
            current = name

        return hook

    handles = []
    for name, module in sites.items():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(enter(""))]
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = compute()
    finally:
        for handle in handles:
            handle.remove()
    by_site = dict.fromkeys(sites, 0)
    for key, names in owners.items():
        if len(names) == 1 and (name := next(iter(names))):
            by_site[name] += storages[key].nbytes()
    total = sum(storage.nbytes() for storage in storages.values())
    del result
    return SavedBytes(total, by_site)
