"""Honest bytes: one ledger line, and the measurement of what autograd really saves for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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
