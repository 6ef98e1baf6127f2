"""Behaviour of the recursion: stepping, gradient mode, halting, casts, private randomness."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from laser_studio.trm import TRM, Carry, Outputs
from laser_studio.trm.layers import CastLinear
from tests.trm.helpers import small_batch, small_model


def tensors(carry: Carry, outputs: Outputs) -> list[Tensor]:
    heads = [outputs.logits, outputs.q_halt_logits, outputs.q_continue_logits]
    extra = [] if outputs.target_q_continue is None else [outputs.target_q_continue]
    return [carry.z_H, carry.z_L, carry.steps, carry.halted, *carry.current_data.values(), *heads, *extra]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mlp_t", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("no_continue", [True, False])
def test_recurse_equals_forward_bit_for_bit(training: bool, mlp_t: bool, dtype: str, no_continue: bool) -> None:
    whole = small_model(mlp_t=mlp_t, forward_dtype=dtype, no_ACT_continue=no_continue, halt_exploration_prob=0.5).train(training)
    stepped, batch = copy.deepcopy(whole), small_batch()
    a = b = whole.initial_carry(batch)
    for s in range(1, 4):
        a, outputs = whole(a, batch)
        steps = list(stepped.recurse(b, batch))
        addresses = [(step.s, step.h, step.l) for step in steps]
        if s == 1:
            assert addresses == [(1, h, low) for h in (1, 2) for low in (1, 2, "H")]
        assert len(steps) == whole.config.steps_per_supervision
        assert all(step.carry is None and step.outputs is None for step in steps[:-1])
        last = steps[-1]
        assert last.carry is not None
        assert last.outputs is not None
        assert torch.equal(last.z_H, last.carry.z_H)
        assert torch.equal(last.z_L, last.carry.z_L)
        for left, right in zip(tensors(a, outputs), tensors(last.carry, last.outputs), strict=True):
            assert torch.equal(left, right)
        outputs.logits.float().square().sum().backward()
        last.outputs.logits.float().square().sum().backward()
        b = last.carry
    for left, right in zip(whole.parameters(), stepped.parameters(), strict=True):
        if left.grad is not None or right.grad is not None:
            assert left.grad is not None
            assert right.grad is not None
            assert torch.equal(left.grad, right.grad)


@pytest.mark.parametrize("training", [False, True])
def test_gradient_mode_never_leaks(training: bool) -> None:
    model, batch = small_model(no_ACT_continue=False).train(training), small_batch()
    carry = model.initial_carry(batch)
    for outer in (True, False):
        with torch.set_grad_enabled(outer):
            for step in model.recurse(carry, batch):
                assert torch.is_grad_enabled() is outer
                graded = outer and step.h == 2
                assert step.z_L.requires_grad is graded
                assert step.z_H.requires_grad is (graded and step.l == "H")


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_abandoned_recursion_leaves_nothing_behind(stop: int) -> None:
    model, batch = small_model(forward_dtype="bfloat16"), small_batch()
    steps: Iterator[Any] = model.recurse(model.initial_carry(batch), batch)
    for _ in range(stop):
        next(steps)
    assert torch.is_grad_enabled()
    del steps
    assert torch.is_grad_enabled()
    assert all(module._casts is None for module in model.modules() if isinstance(module, CastLinear))


def test_gradient_mode_is_the_callers_at_the_call() -> None:
    model, batch = small_model(), small_batch()
    with torch.no_grad():
        steps = model.recurse(model.initial_carry(batch), batch)
    last = list(steps)[-1]
    assert last.outputs is not None
    assert not last.outputs.logits.requires_grad


def test_failure_inside_a_step_leaves_nothing_behind() -> None:
    model, batch = small_model(forward_dtype="bfloat16"), small_batch()
    carry = model.initial_carry(batch)
    with pytest.raises(IndexError):
        model(carry, {"inputs": torch.full_like(batch["inputs"], 99), "puzzle_identifiers": batch["puzzle_identifiers"]})
    assert torch.is_grad_enabled()
    assert all(module._casts is None for module in model.modules() if isinstance(module, CastLinear))


def test_two_interleaved_recursions_equal_two_runs_alone() -> None:
    model, one, two = small_model(forward_dtype="bfloat16"), small_batch(seed=3), small_batch(seed=4)
    with torch.no_grad():
        alone = [model(model.initial_carry(batch), batch) for batch in (one, two)]
        runs = [model.recurse(model.initial_carry(batch), batch) for batch in (one, two)]
        next(runs[0])  # not in step: one ends while the other is midway
        pairs = [list(pair) for pair in zip(*runs, strict=False)]
        rest = list(runs[1])
    ends = [max((step for pair in pairs for step in pair[:1]), key=lambda step: step.carry is not None), rest[-1] if rest else pairs[-1][1]]
    for (carry, outputs), end in zip(alone, ends, strict=True):
        assert end.carry is not None
        for left, right in zip(tensors(carry, outputs), tensors(end.carry, end.outputs), strict=True):
            assert torch.equal(left, right)


def test_halted_samples_restart_and_others_go_on() -> None:
    model, first, second = small_model(), small_batch(seed=3), small_batch(seed=4)
    with torch.no_grad():
        carry, _ = model(model.initial_carry(first), first)
        mixed = replace(carry, halted=torch.tensor([True, False, True]))
        after, outputs = model(mixed, second)
        went_on, kept = model(carry, second)  # nobody halted: the second batch is not looked at
        afresh, new = model(model.initial_carry(second), second)
    assert after.steps.tolist() == [1, 2, 1]
    assert torch.equal(after.current_data["inputs"][1], first["inputs"][1])
    for row, (source, heads) in enumerate([(afresh, new), (went_on, kept), (afresh, new)]):
        torch.testing.assert_close(after.z_H[row], source.z_H[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(outputs.logits[row], heads.logits[row], rtol=0, atol=1e-5)
    assert not torch.allclose(new.logits[1], kept.logits[1], atol=1e-3)


def test_evaluation_halts_at_the_last_step_only() -> None:
    model, batch = small_model(), small_batch()
    with torch.no_grad():
        assert model.q_head.bias is not None
        model.q_head.bias.fill_(100.0)  # wants to stop at once
        carry = model.initial_carry(batch)
        seen = []
        for _ in range(4):
            carry, _ = model(carry, batch)
            seen.append((carry.steps.tolist(), carry.halted.tolist()))
    assert seen == [([1] * 3, [False] * 3), ([2] * 3, [False] * 3), ([3] * 3, [True] * 3), ([1] * 3, [False] * 3)]


@pytest.mark.parametrize(
    ("bias", "prob", "expected"),
    [((9.0, 0.0), 0.0, [[True], [True], [True]]), ((-9.0, 0.0), 0.0, [[False], [False], [True]]), ((9.0, 0.0), 1.0, None)],
)
def test_training_halts_on_q_and_explores(bias: tuple[float, float], prob: float, expected: list[list[bool]] | None) -> None:
    model, batch = small_model(halt_exploration_prob=prob, H_cycles=1, L_cycles=1).train(), small_batch(64)
    with torch.no_grad():
        model.q_head.weight.zero_()
        assert model.q_head.bias is not None
        model.q_head.bias.copy_(torch.tensor(bias))
        carry = model.initial_carry(batch)
        halted = []
        for _ in range(3):
            carry, _ = model(carry, batch)
            halted.append(carry.halted)
            carry = replace(carry, halted=torch.zeros_like(carry.halted))
    if expected is not None:
        assert [sorted(set(row.tolist())) for row in halted] == expected
    else:  # everyone must wait for a drawn 2 or 3
        assert not halted[0].any()
        assert 0.2 < halted[1].float().mean() < 0.8
        assert halted[2].all()


def test_exploration_and_initialisation_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    model = small_model(halt_exploration_prob=0.9).train()
    carry, batch = model.initial_carry(small_batch()), small_batch()
    for _ in range(3):
        carry, _ = model(carry, batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_exploration_follows_its_generator() -> None:
    def run(seed: int) -> list[list[bool]]:
        model, batch = small_model(halt_exploration_prob=0.5, halt_max_steps=8, H_cycles=1, L_cycles=1).train(), small_batch(32)
        model.exploration = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            assert model.q_head.bias is not None
            model.q_head.bias.fill_(20.0)
            carry, seen = model.initial_carry(batch), []
            for _ in range(4):
                carry, _ = model(carry, batch)
                seen.append(carry.halted.tolist())
        return seen

    assert run(5) == run(5)
    assert run(5) != run(6)


class CastCounter(TorchFunctionMode):
    """Counts the casts of each weight."""

    def __init__(self, model: TRM) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.casts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.to and id(args[0]) in self.names:
            self.casts[self.names[id(args[0])]] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mlp_t", [False, True])
def test_weights_are_cast_once_per_supervision_step(mlp_t: bool) -> None:
    model, batch = small_model(mlp_t=mlp_t, forward_dtype="bfloat16"), small_batch()
    carry = model.initial_carry(batch)
    with CastCounter(model) as counter, torch.no_grad():
        model(carry, batch)
    blocks = {name: count for name, count in counter.casts.items() if name.startswith("net.")}
    assert len(blocks) == 8
    assert set(blocks.values()) == {1}
    with CastCounter(model) as counter:
        model(carry, batch)
    assert {count for name, count in counter.casts.items() if name.startswith("net.")} == {1}  # the cycles without gradient share it


def saved_bytes(L_cycles: int) -> int:
    """Bytes autograd keeps for one supervision step in bf16, each storage once, parameters excluded."""
    model, batch = small_model(forward_dtype="bfloat16", L_cycles=L_cycles), small_batch(1)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address could serve twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(model.initial_carry(batch), batch)
    return sum(kept.values())


def test_saved_bytes_do_not_grow_by_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = 2 * sum(parameter.numel() for name, parameter in small_model().named_parameters() if name.startswith("net."))
    held = (saved_bytes(6) - saved_bytes(2)) / 4
    monkeypatch.setattr("laser_studio.trm.model.hold_casts", lambda model, dtype: None)
    cast_at_every_call = (saved_bytes(6) - saved_bytes(2)) / 4
    assert cast_at_every_call - held == pytest.approx(weights, rel=0.01)  # a cycle more costs its activations alone


def test_inference_mode_does_not_spoil_later_training() -> None:
    model, batch = small_model(), small_batch()
    with torch.inference_mode():
        model(model.initial_carry(batch), batch)
    _, outputs = model(model.initial_carry(batch), batch)
    outputs.logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_copies_and_pickles_even_in_the_middle_of_a_step() -> None:
    model, batch = small_model(forward_dtype="bfloat16").train(), small_batch()
    steps = model.recurse(model.initial_carry(batch), batch)
    for _ in range(6):
        next(steps)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(left, right) for left, right in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
        twin(twin.initial_carry(batch), batch)


def test_seed_decides_the_weights() -> None:
    one, same, other = (TRM(small_model().config, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert one["lm_head.weight"].std() == pytest.approx(32**-0.5, rel=0.15)
