"""Keeping for backward something smaller than what autograd saves, or keeping it elsewhere: by hooks on every saved tensor, nothing else.

Rivals of activation compression in `bench_training`. Parameters, buffers and weights in another dtype stay where they are; integers,
fp64 and small tensors (norm deviations, log-sum-exps) are kept as they are, because rounding them costs much and saves nothing. All
views of one storage share what is packed of it. What a backward saves while it rebuilds a stage is gone at once and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from laser_studio.laser import LaserPolicy
from laser_studio.laser.chain import rebuilding
from laser_studio.laser.policy import Rank

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
WORTH = 0.75  # share of a storage that packing must at least get below
LEVELS = 127
TINY = 1e-30


@dataclass(frozen=True)
class Geometry:
    """Where a tensor lies in its storage, in elements."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: Tensor) -> Geometry:
        return Geometry(tuple(tensor.size()), tensor.stride(), int(tensor.storage_offset()))


class Packed(Protocol):
    """What is kept of a storage."""

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...
    def view(self, place: Geometry) -> Tensor:
        """The tensor that lay at `place`, as far as it was kept."""


class PackedSaves:
    """While entered, saved tensors are packed by `_pack`, which a subclass brings; None leaves one as it is.

    free: parameters and what else is there anyway and counts nothing. weights: asked when a storage has as many numbers as one of
    them: what is kept as it is beside them, the parameters in another dtype. small: storages of no more numbers are kept as they are.
    """

    packs: ClassVar[bool] = True
    settles: ClassVar[bool] = False
    by_view: ClassVar[bool] = False  # whether each view is packed by itself rather than its storage as a whole

    def __init__(self, name: str, free: Iterable[Tensor], weights: Callable[[], Iterable[Tensor]], small: int) -> None:
        self.name, self._free, self._weights, self._small = name, list(free), weights, small
        self._left: set[int] = set()
        self._counts = {each.numel() for each in self._free}
        self._met: dict[int, tuple[StorageWeakRef, bool]] = {}  # by identity, which a weak reference keeps from being used again
        self._packed: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
        self._hooks: saved_tensors_hooks | None = None
        self._counted: dict[int, StorageWeakRef] = {}
        self._bytes = 0

    def __enter__(self) -> PackedSaves:
        self._left = {each.untyped_storage().data_ptr() for each in self._free}
        self._bytes = 0
        self._hooks = saved_tensors_hooks(self._keep, _restored)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        hooks, self._hooks = self._hooks, None
        self._met.clear()
        self._counted.clear()
        self._packed.clear()  # what is packed lives on with its graph; without `_met` its storage's identity may be used again
        if hooks is not None:
            hooks.__exit__(*error)

    def beside(self) -> tuple[int, list[Tensor]]:
        return self._bytes, []

    def step(self) -> None: ...

    def _pack(self, tensor: Tensor, width: int) -> Packed | None:
        """What to keep of the tensor's whole storage, or of the tensor itself with `by_view`; called without gradient.

        width: last axis of the tensor it is a view of, where it is a view, else its own.
        """
        raise NotImplementedError

    def _keep(self, tensor: Tensor) -> tuple[Packed, Geometry] | tuple[Tensor, int]:
        storage = tensor.untyped_storage()
        plain = tensor.detach()  # itself it would hold its own graph in a circle
        if storage.data_ptr() in self._left or rebuilding.now:
            return plain, tensor._version
        reference = StorageWeakRef(storage)
        if reference.cdata not in self._met:
            is_small = storage.nbytes() <= self._small * tensor.itemsize
            self._met[reference.cdata] = reference, tensor.dtype not in FLOATS or is_small or self._is_weight(storage, tensor.itemsize)
        if not self._met[reference.cdata][1]:
            place = Geometry.of(tensor)
            key = (reference.cdata, tensor._version, tensor.dtype, place if self.by_view else None)
            packed = self._packed.get(key)
            if packed is None:
                base = tensor if tensor._base is None else tensor._base
                with torch.no_grad():
                    packed = self._pack(plain, base.shape[-1] if base.ndim else 1)
                if packed is not None:
                    self._packed[key] = packed
                    self._count(packed.tensors, tensor.device)
            if packed is not None:
                return packed, place
        self._count((plain,), tensor.device)
        return plain, tensor._version

    def _count(self, kept: Iterable[Tensor], device: torch.device) -> None:
        """Add the bytes of storages on the device that were not yet counted."""
        for tensor in kept:
            reference = StorageWeakRef(tensor.untyped_storage())
            if tensor.device == device and reference.cdata not in self._counted:
                self._counted[reference.cdata] = reference
                self._bytes += tensor.untyped_storage().nbytes()

    def _is_weight(self, storage: torch.UntypedStorage, itemsize: int) -> bool:
        if storage.nbytes() // itemsize not in self._counts:  # no parameter is of that size: no need to look
            return False
        return any(storage.data_ptr() == weight.untyped_storage().data_ptr() for weight in self._weights())


def _restored(kept: tuple[Any, Any]) -> Tensor:
    what, place = kept
    if isinstance(what, Tensor):
        if what._version != place:  # with hooks autograd leaves this check out
            raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation")
        return what
    with torch.no_grad():
        return what.view(place)


def _rows(tensor: Tensor, width: int) -> Tensor | None:
    """The tensor's whole storage as rows (N, width); None where it is not made of such."""
    count = tensor.untyped_storage().nbytes() // tensor.itemsize
    return tensor.as_strided((count // width, width), (width, 1), 0) if width and count % width == 0 else None


class EightBitSaves(PackedSaves):
    """Every saved tensor as int8 with a scale per row of its last axis, to the nearest: off by at most 1/254 of the row's largest."""

    def _pack(self, tensor: Tensor, width: int) -> Packed | None:
        rows = _rows(tensor, width)
        if rows is None or rows.numel() + 4 * rows.shape[0] > WORTH * rows.nbytes:
            return None
        scales = torch.linalg.vector_norm(rows, float("inf"), dim=-1, keepdim=True, dtype=torch.float32).clamp_(min=TINY) / LEVELS
        # NaN or Inf has no code, but its row comes back as NaN by way of the scale.
        return _Codes((rows / scales).round_().to(torch.int8), scales, tensor.dtype)


class _Codes:
    """Codes (N, D) int8 and scales (N, 1) fp32 of a storage of N·D numbers."""

    def __init__(self, codes: Tensor, scales: Tensor, dtype: torch.dtype) -> None:
        self.codes, self.scales, self.dtype = codes, scales, dtype
        self.tensors = (codes, scales)

    def view(self, place: Geometry) -> Tensor:
        width = self.codes.shape[1]
        across = [step % width == 0 for step in place.stride]  # axes along which whole rows are passed over
        inside = sum((size - 1) * step for size, step, far in zip(place.size, place.stride, across, strict=True) if not far)
        if place.offset % width + inside < width:  # no other axis leaves its row: only what is wanted is computed
            steps = [step // width if far else 0 for step, far in zip(place.stride, across, strict=True)]
            scales = self.scales.as_strided(place.size, steps, place.offset // width)
            return (self.codes.as_strided(place.size, place.stride, place.offset) * scales).to(self.dtype)
        return (self.codes * self.scales).to(self.dtype).as_strided(place.size, place.stride, place.offset)


class SavedOnCPU(PackedSaves):
    """`torch.autograd.graph.save_on_cpu`, pinned where the device is a CUDA one; but weights stay, and each view is copied once."""

    by_view = True

    def __init__(self, name: str, free: Iterable[Tensor], weights: Callable[[], Iterable[Tensor]], small: int) -> None:
        super().__init__(name, free, weights, small)
        self._there = {pinned: save_on_cpu(pin_memory=pinned) for pinned in (False, True)}

    def _pack(self, tensor: Tensor, width: int) -> Packed:
        return _Elsewhere(self._there[tensor.is_cuda], tensor)


class _Elsewhere:
    """What `save_on_cpu` makes of one tensor."""

    def __init__(self, hooks: saved_tensors_hooks, tensor: Tensor) -> None:
        self._kept, self._back = hooks.pack_hook(tensor), hooks.unpack_hook
        self.tensors = tuple(each for each in self._kept if isinstance(each, Tensor))

    def view(self, place: Geometry) -> Tensor:
        return self._back(self._kept)


class FreshLowRank(PackedSaves):
    """X (N, D) as US (N, k) and V (D, k) of its own `torch.svd_lowrank(q=k)`, made anew for each tensor saved; comes back as USVᵀ.

    Where that is no smaller than X, and where X is not finite, X is kept.
    """

    def __init__(self, name: str, free: Iterable[Tensor], weights: Callable[[], Iterable[Tensor]], small: int, rank: Rank) -> None:
        super().__init__(name, free, weights, small)
        self._rank_for = LaserPolicy(rank=rank).rank_for

    def _pack(self, tensor: Tensor, width: int) -> Packed | None:
        rows = _rows(tensor, width)
        if rows is None:
            return None
        rank = self._rank_for(rows.shape[1])
        if rank * sum(rows.shape) >= rows.numel():
            return None
        try:
            with _private_randomness(rows.device):
                left, sizes, right = torch.svd_lowrank(rows.float(), q=rank)
        except torch.linalg.LinAlgError:
            return None
        return _Factors((left * sizes).to(tensor.dtype), right.to(tensor.dtype))


class _Factors:
    """US (N, k) and V (D, k) of a storage of N·D numbers."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = self.tensors = left, right.contiguous()

    def view(self, place: Geometry) -> Tensor:
        return (self.left @ self.right.T).as_strided(place.size, place.stride, place.offset)


@contextmanager
def _private_randomness(device: torch.device) -> Iterator[None]:
    """The same random numbers each time from the generator of `device`, which goes on after as if none had been drawn."""
    if device.type == "cuda":
        with torch.random.fork_rng(devices=[device]), torch.cuda.device(device):
            torch.cuda.manual_seed(0)
            yield
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield
