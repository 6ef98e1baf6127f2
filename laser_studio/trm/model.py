"""The Tiny Recursive Model: one supervision step as a whole (`forward`) or one net application at a time (`recurse`).

Here live the embedding, the order of the recursion, the heads and the halting rule. Layers are in `layers`, what an application reads
and replaces in `recursion`, files in `checkpoints`.
The arithmetic follows "Less is More: Recursive Reasoning with Tiny Networks" (arXiv 2510.04871) and its public code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laser_studio.trm.config import LOW_STATES, TRMConfig
from laser_studio.trm.layers import (
    CastLinear,
    CosSin,
    PreNormNet,
    ReasoningNet,
    TwoNets,
    drop_casts,
    hold_casts,
    make_net,
    rope_table,
    trunc_normal_,
)
from laser_studio.trm.recursion import States, low_injection, net_of, reads, replaced, summed

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Carry:
    """What one supervision step hands to the next; all tensors without gradient.

    z_H, z_L: (B, P + T, D) in the forward dtype, P the prefix; steps: (B,) int32, supervision steps done on the
    sample at hand; halted: (B,) bool, True asks the next step to start afresh from its batch; current_data: the
    batch the states belong to; levels: of the variant hier6 its low states, whose sum z_L is, else empty.
    """

    z_H: Tensor
    z_L: Tensor
    steps: Tensor
    halted: Tensor
    current_data: dict[str, Tensor]
    levels: tuple[Tensor, ...] = ()

    @property
    def states(self) -> States:
        """The states alone."""
        return States(self.z_H, self.z_L, self.levels)

    def going_on(self) -> Carry:
        """The same states with nothing halted: the next step continues every sample, past the trained depth too."""
        return replace(self, halted=torch.zeros_like(self.halted))


@dataclass(frozen=True)
class Outputs:
    """logits: (B, T, vocab) in the forward dtype; q_halt_logits, q_continue_logits: (B,) fp32.

    target_q_continue: (B,) fp32 in [0, 1], only in training with `no_ACT_continue=False`.
    """

    logits: Tensor
    q_halt_logits: Tensor
    q_continue_logits: Tensor
    target_q_continue: Tensor | None = None


@dataclass(frozen=True)
class RecursionStep:
    """One application of the net, at (s, h, l), each counted from 1; l is "H" for the z_H update.

    The last one of a supervision step has `carry` and `outputs`. levels: as in `Carry`.
    """

    steps: Tensor
    h: int
    l: int | Literal["H"]  # noqa: E741 - the name of the L cycle in the paper
    z_H: Tensor
    z_L: Tensor
    carry: Carry | None = None
    outputs: Outputs | None = None
    levels: tuple[Tensor, ...] = ()

    @property
    def s(self) -> int:
        """The supervision step (of the sample furthest along); reading it waits for the device."""
        return int(self.steps.max())

    @property
    def ends_cycle(self) -> bool:
        """True where this step closes an H cycle."""
        return self.l == "H"


class Embedding(nn.Module):
    """Token embedding, puzzle embedding in front, positions, scaling by √D."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.puzzles = nn.Parameter(torch.empty(config.num_puzzle_identifiers, config.puzzle_emb_ndim)) if config.puzzle_emb_ndim else None
        learned = config.pos_encodings == "learned"
        self.positions = nn.Parameter(torch.empty((config.seq_len or 0) + config.prefix_len, config.hidden_size)) if learned else None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            trunc_normal_(self.tokens, self.config.hidden_size**-0.5, generator)
            if self.puzzles is not None:
                self.puzzles.zero_()
            if self.positions is not None:
                trunc_normal_(self.positions, self.config.hidden_size**-0.5, generator)

    def forward(self, inputs: Tensor, puzzle_identifiers: Tensor, dtype: torch.dtype) -> Tensor:  # (B, T), (B,) -> (B, P + T, D)
        config = self.config
        x = F.embedding(inputs, self.tokens).to(dtype)
        if self.puzzles is not None:
            prefix = F.embedding(puzzle_identifiers, self.puzzles).to(dtype)  # (B, ndim)
            prefix = F.pad(prefix, (0, config.prefix_len * config.hidden_size - config.puzzle_emb_ndim))
            x = torch.cat((prefix.view(-1, config.prefix_len, config.hidden_size), x), dim=1)
        if self.positions is not None:
            x = 0.707106781 * (x + self.positions.to(dtype))  # 1/√2 keeps the variance of a sum of two
        return x if config.variant == "lucidrains" else config.hidden_size**0.5 * x


class TRM(nn.Module):
    """Tiny Recursive Model, or one of its relatives (`TRMConfig.variant`).

    >>> model = TRM(TRMConfig(vocab_size=8, seq_len=36, hidden_size=32, num_heads=2, forward_dtype="float32"), seed=0)
    >>> batch = {"inputs": torch.ones(1, 36, dtype=torch.long), "puzzle_identifiers": torch.zeros(1, dtype=torch.long)}
    >>> carry, out = model.eval()(model.initial_carry(batch), batch)
    >>> out.logits.shape
    torch.Size([1, 36, 8])

    `seed` draws the initial weights from a private generator. `exploration` may hold the generator of the halting
    exploration (on the model's device); without one a private generator seeded with 0 is made at first need. `exploration_share` says which
    of how many equal parts of a batch this model sees, where several processes with equal generators share one.
    `details` tells where the weights come from; `load_checkpoint` fills it. H_init, L_init: (D,) the states at the start; of hier6
    L_init is (6, D), of singlez both are the one state's.
    """

    H_init: Tensor
    L_init: Tensor

    def __init__(self, config: TRMConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.forward_dtype: torch.dtype = getattr(torch, config.forward_dtype)
        self.embedding = Embedding(config)
        with torch.random.fork_rng(devices=[]):  # nn.Linear's own initialiser draws from the global generator
            self.net = make_net(config)
            self.lm_head = CastLinear(config.hidden_size, config.vocab_size)
            self.q_head = CastLinear(config.hidden_size, 2, bias=True)
        self.register_buffer("H_init", torch.empty(config.hidden_size, dtype=self.forward_dtype))
        low = (LOW_STATES, config.hidden_size) if config.variant == "hier6" else (config.hidden_size,)
        self.register_buffer("L_init", torch.empty(low, dtype=self.forward_dtype))
        self.exploration: torch.Generator | None = None
        self.exploration_share = 0, 1
        self.details: dict[str, Any] = {}
        self._rope_cache: dict[tuple[int, torch.device], CosSin] = {}
        if self.H_init.device.type != "meta":
            self.reset_parameters(seed)

    def reset_parameters(self, seed: int) -> None:
        """Draw all weights and initial states anew from `seed`, as the official code initialises them."""
        generator = torch.Generator(self.H_init.device).manual_seed(seed)
        for module in self.modules():
            if isinstance(module, CastLinear | Embedding):
                module.reset_parameters(generator)
        with torch.no_grad():
            self.q_head.weight.zero_()  # halting starts almost surely off, which speeds up the first steps of training
            assert self.q_head.bias is not None
            self.q_head.bias.fill_(-5)
            for start in (self.H_init, self.L_init):
                start.copy_(trunc_normal_(torch.empty(start.shape, device=start.device), 1.0, generator))
            if self.config.variant == "singlez":
                self.H_init.copy_(self.L_init)

    @property
    def nets(self) -> list[ReasoningNet | PreNormNet]:
        """What the recursion applies: the one net, or an HRM's two."""
        return [self.net.H_level, self.net.L_level] if isinstance(self.net, TwoNets) else [self.net]

    def initial_carry(self, batch: Batch) -> Carry:
        """A carry at the initial states, halted, so that the next step takes its data from the batch it is given."""
        inputs = batch["inputs"]
        size, device = inputs.shape[0], self.H_init.device
        shape = (size, inputs.shape[1] + self.config.prefix_len, self.config.hidden_size)
        levels = tuple(start.expand(shape) for start in self._low_starts()) if self.config.variant == "hier6" else ()
        return Carry(
            z_H=self.H_init.expand(shape),
            z_L=summed(levels) if levels else self.L_init.expand(shape),
            steps=torch.zeros(size, dtype=torch.int32, device=device),
            halted=torch.ones(size, dtype=torch.bool, device=device),
            current_data={key: value.to(device) for key, value in batch.items()},
            levels=levels,
        )

    def _low_starts(self) -> tuple[Tensor, ...]:
        """Of hier6, each low state's start."""
        return self.L_init.unbind()

    def forward(self, carry: Carry, batch: Batch) -> tuple[Carry, Outputs]:
        """One supervision step: H_cycles − 1 cycles without gradient, one with.

        batch: {"inputs": (B, T) int, "puzzle_identifiers": (B,) int}. Samples whose carry is halted restart from the
        batch; the others go on with their own data. In evaluation nothing halts before `halt_max_steps`.
        """
        for step in self.recurse(carry, batch):
            last = step
        assert last.carry is not None and last.outputs is not None
        return last.carry, last.outputs

    def recurse(
        self, carry: Carry, batch: Batch, *, done: tuple[int, int] = (0, 0), cycles: Sequence[int] | None = None
    ) -> Iterator[RecursionStep]:
        """The same supervision step as `forward`, bit for bit, yielding after each application of the net.

        Gradient mode is the caller's at the time of this call; it is never changed between two steps.

        done: where within the supervision step the carry's states stand, as H cycles finished and L updates made since; the rest
        follows from there, with the carry's `steps` those of the supervision steps before this one. cycles: the L updates of each
        H cycle, where they are not the configured ones.
        """
        config = self.config
        return self._recurse(carry, batch, torch.is_grad_enabled(), done, cycles or (config.L_cycles,) * config.H_cycles)

    def _recurse(self, carry: Carry, batch: Batch, grad: bool, done: tuple[int, int], cycles: Sequence[int]) -> Iterator[RecursionStep]:
        config, last = self.config, len(cycles)
        finished, made = done
        with torch.set_grad_enabled(grad):
            hold_casts(self, self.forward_dtype)
        try:
            with torch.set_grad_enabled(grad):
                carry = self._restart_halted(carry, batch)
                data = carry.current_data
                x = self.embedding(data["inputs"], data["puzzle_identifiers"], self.forward_dtype)
            rope = self.rope(x.shape[1], x.device)
            states, steps = carry.states, carry.steps + 1
            for h in range(finished + 1, last + 1):
                for l, now in self._cycle(states, x, rope, grad and h == last, cycles[h - 1], made):  # noqa: E741
                    states = now
                    if h < last or l != "H":
                        yield RecursionStep(steps, h, l, states.z_H, states.z_L, levels=states.levels)
                made = 0
            with torch.set_grad_enabled(grad):
                outputs = self.read_out(states.z_H)
            levels = tuple(level.detach() for level in states.levels)
            carry = Carry(states.z_H.detach(), states.z_L.detach(), steps, steps >= config.halt_max_steps, data, levels)
            if self.training and config.halt_max_steps > 1:
                with torch.no_grad():
                    carry, outputs = self._halt(carry, outputs, x, rope)
            yield RecursionStep(steps, last, "H", states.z_H, states.z_L, carry, outputs, states.levels)
        finally:
            drop_casts(self)

    def _cycle(
        self, states: States, x: Tensor, rope: CosSin | None, grad: bool, updates: int | None = None, made: int = 0
    ) -> Iterator[tuple[int | Literal["H"], States]]:
        """The states after each application of an H cycle, `made` low updates having been made already.

        Where the cycle carries gradient all applications do, of an HRM only the last of each net.
        """
        last, injection, injected = self.config.L_cycles if updates is None else updates, None, False
        for l in range(made + 1, last + 1):  # noqa: E741
            # No `with` may span a yield: the caller would run under our gradient mode.
            graded = grad and (self.config.variant != "hrm" or l == last)
            with torch.set_grad_enabled(graded):
                if injection is None or graded != injected:
                    injection, injected = low_injection(self.config, states, x), graded
                states = self.applied(states, injection, rope, l)
            yield l, states
        with torch.set_grad_enabled(grad):
            states = self.applied(states, None, rope, "H")
        yield "H", states

    def applied(self, states: States, injection: Tensor | None, rope: CosSin | None, l: int | Literal["H"]) -> States:  # noqa: E741
        """One application of the net: the l-th low update of an H cycle, with its `low_injection`, or the one that ends it."""
        z, added = reads(self.config, states, injection, l)
        return replaced(self.config, states, net_of(self.net, l)(z, added, rope), l)

    def cycle(self, states: States, x: Tensor, rope: CosSin | None, updates: int | None = None) -> States:
        """One H cycle (of `updates` low updates, where given) on the embedded puzzle x; gradient as in a supervision step's last one."""
        for _, now in self._cycle(states, x, rope, torch.is_grad_enabled(), updates):
            end = now
        return end

    def read_out(self, z_H: Tensor) -> Outputs:
        """Both heads on a state z_H (B, P + T, D): the answer's logits (without the prefix) and the two halting values."""
        pooled = z_H.mean(1) if self.config.variant == "lucidrains" else z_H[:, 0]
        q = self.q_head(pooled).float()
        return Outputs(self.lm_head(z_H)[:, self.config.prefix_len :], q[:, 0], q[:, 1])

    def _restart_halted(self, carry: Carry, batch: Batch) -> Carry:
        halted = carry.halted

        def fresh(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(halted.view(-1, *[1] * (old.ndim - 1)), new, old)

        levels = tuple(fresh(start, old) for start, old in zip(self._low_starts(), carry.levels, strict=True)) if carry.levels else ()
        return replace(
            carry,
            z_H=fresh(self.H_init, carry.z_H),
            z_L=summed(levels) if levels else fresh(self.L_init, carry.z_L),
            steps=carry.steps.masked_fill(halted, 0),
            current_data={key: fresh(batch[key].to(halted.device), old) for key, old in carry.current_data.items()},
            levels=levels,
        )

    def _halt(self, carry: Carry, outputs: Outputs, x: Tensor, rope: CosSin | None) -> tuple[Carry, Outputs]:
        """The training rule: stop where the model says so, unless exploration asks for more steps."""
        config, last = self.config, carry.halted
        q_halt, q_continue = outputs.q_halt_logits, outputs.q_continue_logits
        wants_to_stop = q_halt > 0 if config.no_ACT_continue else q_halt > q_continue
        if self.exploration is None:
            self.exploration = torch.Generator(q_halt.device).manual_seed(0)
        (own, processes), count = self.exploration_share, len(q_halt)
        mine, everyone = slice(own * count, (own + 1) * count), (processes * count,)
        explores = torch.rand(everyone, generator=self.exploration, device=q_halt.device)[mine] < config.halt_exploration_prob
        least = torch.randint(2, config.halt_max_steps + 1, everyone, generator=self.exploration, device=q_halt.device)[mine]
        halted = (last | wants_to_stop) & (carry.steps >= explores * least)
        if not config.no_ACT_continue:
            future = self.read_out(self._supervised(carry.states, x, rope).z_H)
            best = torch.where(last, future.q_halt_logits, torch.maximum(future.q_halt_logits, future.q_continue_logits))
            outputs = replace(outputs, target_q_continue=best.sigmoid())
        return replace(carry, halted=halted), outputs

    def _supervised(self, states: States, x: Tensor, rope: CosSin | None) -> States:
        """The states after one more supervision step, without reporting its steps."""
        for _ in range(self.config.H_cycles):
            states = self.cycle(states, x, rope)
        return states

    def rope(self, length: int, device: torch.device) -> CosSin | None:
        """The rotation table for `length` tokens (prefix included), None where the model has no RoPE."""
        config = self.config
        if config.pos_encodings != "rope" or config.mlp_t:
            return None
        key = (length, device)
        if key not in self._rope_cache:
            with torch.inference_mode(False):  # a table made in inference mode could not serve a later training step
                grid: dict[str, Any] = {
                    "columns": config.rope_columns,
                    "prefix": config.prefix_len,
                    "leading": config.rope_grid == "leading",
                }
                self._rope_cache = {key: rope_table(length, config.head_dim, config.rope_theta, device, **grid)}
        return self._rope_cache[key]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "exploration": None}  # a torch.Generator cannot be copied or pickled
