"""The arms of `bench_training`: ways to keep what backward needs, ours and the others', each a context around the steps of a model.

What packs saved tensors lives in `packed_saves`, bases that do not move in `rival_bases`; how arms are measured is the bench's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from laser_studio.errors import TrainingError
from laser_studio.lab.packed_saves import EightBitSaves, FreshLowRank, PackedSaves, SavedOnCPU
from laser_studio.lab.rival_bases import first_bases, random_bases
from laser_studio.lab.train import per_block
from laser_studio.laser import Compression, LaserPolicy, compress
from laser_studio.laser.budget import Choice, Run
from laser_studio.laser.compress import Mode
from laser_studio.laser.patches import Wrap
from laser_studio.laser.policy import ALL_OFF, Rank
from laser_studio.laser.quantise import Storage
from laser_studio.trm import TRM
from laser_studio.trm.layers import SwiGLU, held_casts

PLAIN = "plain autograd"
CHECKPOINTED = "checkpoint of each net application"
ON_CPU = "save_on_cpu"
EIGHT_BITS = "8-bit saves"
FUSED = "fused SwiGLU"
BUDGETS = ("cosine=0.99", "cosine=0.999")


class Arm(Protocol):
    """One way to keep what backward needs, entered around forward and backward of every step.

    packs: whether it has hooks on saved tensors of its own, which hide what they keep from hooks around them; settles: whether it
    learns from the first steps, so that these are to be run before anything is measured.
    """

    name: str

    @property
    def packs(self) -> bool: ...
    @property
    def settles(self) -> bool: ...
    def __enter__(self) -> object: ...
    def __exit__(self, *error: object) -> None: ...
    def beside(self) -> tuple[int, list[Tensor]]:
        """Bytes kept for backward since it was entered that hooks on saved tensors cannot see, and the tensors among them that such
        hooks may see all the same, not to be counted twice."""

    def step(self) -> object:
        """The end of an optimiser step."""


class Plain:
    """Autograd as it is."""

    packs: ClassVar[bool] = False

    def __init__(self, name: str = PLAIN, *, settles: bool = False) -> None:
        self.name, self.settles = name, settles

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def beside(self) -> tuple[int, list[Tensor]]:
        return 0, []

    def step(self) -> None: ...


class Patched(Plain):
    """While entered, the forward of some modules is another one where gradients are on."""

    def __init__(self, name: str, modules: Sequence[nn.Module]) -> None:
        super().__init__(name)
        self._modules = modules
        self._patches: list[Wrap] = []

    def __enter__(self) -> Self:
        self._patches = [Wrap(module, partial(self._instead, module)) for module in self._modules]
        return self

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.remove()

    def _instead(self, module: nn.Module, plain: Callable[..., Tensor], *args: Any) -> Tensor:
        return self._forward(module, plain, *args) if torch.is_grad_enabled() else plain(*args)

    def _forward(self, module: Any, plain: Callable[..., Tensor], *args: Any) -> Tensor:
        raise NotImplementedError


class Checkpointed(Patched):
    """Each application of the net keeps only its inputs, which `checkpoint` saves as autograd does, and is run again in backward."""

    def __init__(self, model: TRM, name: str = CHECKPOINTED) -> None:
        super().__init__(name, [model.net])

    def _forward(self, module: Any, plain: Callable[..., Tensor], *args: Any) -> Tensor:
        return checkpoint(plain, *args, use_reentrant=False, preserve_rng_state=False)


class FusedSwiGLU(Patched):
    """Every SwiGLU keeps, of all that comes after its first projection, only that projection's result."""

    def __init__(self, model: TRM, name: str = FUSED) -> None:
        super().__init__(name, [module for module in model.net.modules() if isinstance(module, SwiGLU)])

    def _forward(self, module: Any, plain: Callable[..., Tensor], *args: Any) -> Tensor:
        gate_up = module.gate_up_proj(*args)
        return _GatedDown.apply(gate_up, module.down_proj.weight_as(gate_up.dtype))


class _GatedDown(torch.autograd.Function):
    """(silu(g)·u)Wᵀ of gate_up (…, 2n) = [g, u] and W (D, n); silu and the product are computed again in backward."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, weight)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.linear(F.silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate_up, weight = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        active = F.silu(gate)
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_weight = rows.T @ (active * up).reshape(-1, weight.shape[1])
        inner = gradient @ weight  # at silu(g)·u
        to_gate_up = torch.empty_like(gate_up)
        to_gate, to_up = to_gate_up.chunk(2, dim=-1)
        torch.mul(inner, active, out=to_up)
        torch.ops.aten.silu_backward.grad_input(inner.mul_(up), gate, grad_input=to_gate)
        return to_gate_up, to_weight


class Compressed(Plain):
    """Activation compression, with bases of ours or others."""

    def __init__(self, name: str, laser: Compression, *, settles: bool = True) -> None:
        super().__init__(name, settles=settles)
        self.laser = laser

    def __enter__(self) -> Self:
        self.laser.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.laser.__exit__(*error)

    def beside(self) -> tuple[int, list[Tensor]]:
        return self.laser.ledger().total.basis_bytes, self.laser.bases

    def step(self) -> None:
        self.laser.step()


class Budgeted(Compressed):
    """Activation compression whose ranks and storage a budget finds on the first steps."""

    def choose(self, runs: Sequence[Run]) -> Choice:
        """Find them; runs: the first steps, forward and backward each."""
        return self.laser.choose(runs)


class FreshBases(Compressed):
    """Rebuilding, where every place kept between stages is a fresh low-rank factorisation of what it holds."""

    packs: ClassVar[bool] = True

    def __init__(self, name: str, laser: Compression, saves: FreshLowRank) -> None:
        super().__init__(name, laser, settles=False)
        self._saves = saves

    def __enter__(self) -> Self:
        super().__enter__()
        self._saves.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._saves.__exit__(*error)
        super().__exit__(*error)

    def beside(self) -> tuple[int, list[Tensor]]:
        return self._saves.beside()


@dataclass(frozen=True)
class Place:
    """What arms are made for. tokens: of a sequence, prefix included; batch: puzzles of a step."""

    model: TRM
    tokens: int
    batch: int

    @property
    def device(self) -> torch.device:
        return self.model.H_init.device

    @property
    def free(self) -> list[Tensor]:
        """What is there whether anything is saved or not: parameters, buffers and the rotation table."""
        return [*self.model.parameters(), *self.model.buffers(), *(self.model.rope(self.tokens, self.device) or ())]

    @property
    def small(self) -> int:
        """An eighth of a state: what is no larger is a norm's deviation, a log-sum-exp or the like, and not worth packing."""
        return self.batch * self.tokens * self.model.config.hidden_size // 8

    def packing(self, kind: type[PackedSaves], name: str) -> PackedSaves:
        return kind(name, self.free, lambda: held_casts(self.model), self.small)

    def fresh(self, name: str, rank: Rank) -> FreshBases:
        laser = compress(self.model, LaserPolicy(sites=ALL_OFF))
        return FreshBases(name, laser, FreshLowRank(name, self.free, lambda: [*held_casts(self.model), *laser.casts], self.small, rank))


def make_arms(place: Place, ranks: Sequence[Rank], patterns: Iterable[str] = ()) -> tuple[list[Arm], dict[str, str]]:
    """The arms of those names, plain autograd first, and why others are left out where they were asked for.

    patterns: as in a shell, with * and ?, in any case; none: all. Raises `TrainingError` for a pattern that is no arm's.
    """
    makers = _makers(place, ranks)
    asked = [pattern.strip().lower() for pattern in patterns]
    for pattern in asked:
        if not any(fnmatchcase(name.lower(), pattern) for name in makers):
            raise TrainingError(f"no arm is called {pattern[:60]!r}: there are {'; '.join(makers)}")
    chosen = [name for name in makers if not asked or any(fnmatchcase(name.lower(), pattern) for pattern in asked)]
    left_out = {name: why for name, why in _pointless(place.device).items() if any(fnmatchcase(one, name) for one in chosen)}
    kept = [name for name in chosen if name != PLAIN and not any(fnmatchcase(name, pattern) for pattern in left_out)]
    return [makers[name](name) for name in (PLAIN, *kept)], left_out


def _pointless(device: torch.device) -> dict[str, str]:
    """Patterns of names that are no arms on that device, and why."""
    found = {}
    if device.type == "cpu":
        found[ON_CPU] = "the device is the CPU, so that it moves nothing: the same bytes stay in the same memory"
    if device.type not in ("cpu", "cuda"):
        found["fresh svd_lowrank*"] = f"torch has no QR on {device.type}"
    return found


def _makers(place: Place, ranks: Sequence[Rank]) -> Mapping[str, Callable[[str], Arm]]:
    model = place.model

    def ours(mode: Mode, storage: Storage | Mapping[str, Storage], rank: Rank | None = None) -> Callable[[str], Arm]:
        policy = LaserPolicy(sites=ALL_OFF) if rank is None else LaserPolicy(rank=rank, max_rank=rank, min_fidelity=0)
        return lambda name: Compressed(name, compress(model, policy, mode, storage=storage), settles=rank is not None)

    def others(bases: Callable[..., Compression], rank: Rank, mode: Mode, storage: Storage = "exact") -> Callable[[str], Arm]:
        return lambda name: Compressed(name, bases(model, rank, mode, storage))

    makers: dict[str, Callable[[str], Arm]] = {
        PLAIN: Plain,
        CHECKPOINTED: lambda name: Checkpointed(model, name),
        ON_CPU: lambda name: place.packing(SavedOnCPU, name),
        EIGHT_BITS: lambda name: place.packing(EightBitSaves, name),
        FUSED: lambda name: FusedSwiGLU(model, name),
        "rebuild only": ours("block", "exact"),
        "rebuild from int8": ours("block", "int8"),
        "rebuild from int4": ours("block", "int4"),
        "rebuild blocks from int8": ours("block", per_block("int8")),
        "rebuild blocks from int4": ours("block", per_block("int4")),
    }
    for cosine in BUDGETS:
        makers[f"budget {cosine}"] = lambda name: Budgeted(name, compress(model, budget=name.removeprefix("budget ")))
    for rank in ranks:
        makers |= {
            f"linear, rank {rank}": ours("linear", "exact", rank),
            f"block, rank {rank}": ours("block", "exact", rank),
            f"block, rank {rank}, int8": ours("block", "int8", rank),
            f"fixed basis, rank {rank}": others(first_bases, rank, "block"),
            f"fixed basis, rank {rank}, int8": others(first_bases, rank, "block", "int8"),
            f"fresh svd_lowrank, rank {rank}": partial(place.fresh, rank=rank),
            f"random basis, rank {rank}": others(random_bases, rank, "block"),
            f"random basis, linear, rank {rank}": others(random_bases, rank, "linear"),
        }
    return makers
