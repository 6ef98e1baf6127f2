"""TRM's relatives (one state, six low states, two nets): loaded from their programs' files, compared with their arithmetic restated."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from torch import Tensor

from laser_studio.debugger import ChangeState, Measures, Planned, Session
from laser_studio.debugger.looking import directions, removals
from laser_studio.debugger.mixing import mixing
from laser_studio.debugger.net_application import NetApplication
from laser_studio.errors import InspectionError
from laser_studio.laser import LaserPolicy, compress
from laser_studio.puzzles import load_puzzles
from laser_studio.trm import TRM, Carry, CheckpointNeeds, load_checkpoint, save_checkpoint, save_official
from laser_studio.trm.checkpoints import official_weights
from laser_studio.trm.recursion import changed
from tests.trm.helpers import LENGTH, small_batch, small_model
from tests.trm.references import Reference, hier6_step, hrm_step, singlez_step, turns_by_place
from tests.trm.test_checkpoints import refused, same

NAMES = {"singlez": "trm_singlez", "hier6": "trm_hier6", "hrm": "hrm_act_v1"}
STEPS = {"singlez": singlez_step, "hier6": hier6_step, "hrm": hrm_step}
CYCLES = {"H_cycles": 2, "L_cycles": 3}


def variant_model(variant: str, seed: int = 1, **changes: Any) -> TRM:
    own: dict[str, Any] = {"H_layers": 2, "L_layers": 1, "no_ACT_continue": False, "puzzle_emb_len": 0} if variant == "hrm" else {}
    return small_model(seed, variant=variant, **(CYCLES | own | changes))


def written(folder: Path, model: TRM, **arch: Any) -> Path:
    """As the program of the variant writes it: its own keys and no others."""
    config = model.config
    names = (
        "H_cycles L_cycles H_layers L_layers hidden_size num_heads expansion pos_encodings forward_dtype mlp_t puzzle_emb_ndim "
        "halt_max_steps halt_exploration_prob"
    )
    record: dict[str, Any] = {name: getattr(config, name) for name in names.split()}
    if config.variant != "hrm":
        record |= {"puzzle_emb_len": config.puzzle_emb_len, "no_ACT_continue": True}
    record |= {"name": f"recursive_reasoning.{NAMES[config.variant]}@X", "loss": {"name": "losses@ACTLossHead"}} | arch
    torch.save(
        {f"_orig_mod.model.inner.{key}": value.detach().clone() for key, value in official_weights(model).items()}, folder / "step_7"
    )
    (folder / "all_config.yaml").write_text(yaml.safe_dump({"arch": record}))
    return folder / "step_7"


def reference_of(model: TRM) -> Reference:
    config = model.config
    angles = None
    if config.pos_encodings == "rope" and not config.mlp_t:
        angles = turns_by_place(LENGTH + config.prefix_len, config.head_dim)
    return Reference(
        {name: value.detach().clone() for name, value in official_weights(model).items()}, config.num_heads, config.prefix_len, angles
    )


def starts(weights: dict[str, Tensor], variant: str, shape: torch.Size) -> tuple[Tensor, ...]:
    names = {"singlez": ["L_init"], "hrm": ["H_init", "L_init"], "hier6": ["H_init", *(f"L{level}_init" for level in range(1, 7))]}[variant]
    return tuple(weights[name].expand(shape) for name in names)


def states_of(carry: Carry, variant: str) -> tuple[Tensor, ...]:
    return {"singlez": (carry.z_L,), "hrm": (carry.z_H, carry.z_L), "hier6": (carry.z_H, *carry.levels)}[variant]


def close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_the_names_in_the_files() -> None:
    assert "H_init" not in official_weights(variant_model("singlez"))
    assert {f"L{level}_init" for level in range(1, 7)} < set(official_weights(variant_model("hier6")))
    assert "L_init" not in official_weights(variant_model("hier6"))
    hrm = official_weights(variant_model("hrm"))
    assert "H_level.layers.1.self_attn.qkv_proj.weight" in hrm and "L_level.layers.0.mlp.down_proj.weight" in hrm
    assert not any(name.startswith("net.") for name in hrm)


@pytest.mark.parametrize("variant", STEPS)
@pytest.mark.parametrize(("mlp_t", "positions"), [(False, "rope"), (False, "learned"), (True, "none")])
def test_loaded_variants_equal_their_reference(tmp_path: Path, variant: str, mlp_t: bool, positions: str) -> None:
    model = load_checkpoint(written(tmp_path, variant_model(variant, mlp_t=mlp_t, pos_encodings=positions)), device="cpu")
    same(model, variant_model(variant, mlp_t=mlp_t, pos_encodings=positions, seq_len=LENGTH))
    reference, batch = reference_of(model), small_batch()
    x = reference.embedded(batch["inputs"], batch["puzzle_identifiers"])
    states: Any = starts(reference.w, variant, x.shape)
    carry = model.initial_carry(batch)
    with torch.no_grad():
        for _ in range(model.config.halt_max_steps):
            states, z = STEPS[variant](reference, states, x, **CYCLES)
            logits, halting = reference.read(z)
            carry, outputs = model(carry, batch)
            close(outputs.logits, logits)
            close(torch.stack((outputs.q_halt_logits, outputs.q_continue_logits), -1), halting)
            for state, expected in zip(states_of(carry, variant), states, strict=True):
                close(state, expected)
            low = tuple(states[1:]) if variant == "hier6" else ()
            z_L = sum(low[1:], low[0]) if low else states[-1]
            carry = replace(carry, z_H=states[0], z_L=z_L, levels=low)  # both go on from the same states
    assert logits.std() > 1e-2
    assert bool(carry.halted.all())


@pytest.mark.parametrize("variant", STEPS)
def test_gradients_equal_their_reference(variant: str) -> None:
    model, batch = variant_model(variant), small_batch()
    reference = reference_of(model)
    for value in reference.w.values():
        value.requires_grad_()
    x = reference.embedded(batch["inputs"], batch["puzzle_identifiers"])
    _, z = STEPS[variant](reference, starts(reference.w, variant, x.shape), x, **CYCLES)
    logits, halting = reference.read(z)
    (logits.square().mean() + halting.square().sum()).backward()
    _, outputs = model(model.initial_carry(batch), batch)
    (outputs.logits.square().mean() + outputs.q_halt_logits.square().sum() + outputs.q_continue_logits.square().sum()).backward()
    compared = 0
    for name, parameter in official_weights(model).items():
        if name.endswith("_init"):
            continue
        gradient = reference.w[name].grad
        assert gradient is not None and parameter.grad is not None, name
        scale = float(gradient.abs().max())
        assert scale > 0, name
        assert float((parameter.grad - gradient).abs().max()) <= 2e-4 * scale, name
        compared += 1
    assert compared == len(list(model.parameters()))


@pytest.mark.parametrize("variant", STEPS)
def test_one_application_at_a_time(variant: str) -> None:
    model, batch = variant_model(variant), small_batch()
    with torch.no_grad():
        steps = list(model.recurse(model.initial_carry(batch), batch))
        carry, outputs = model(model.initial_carry(batch), batch)
    assert [(step.h, step.l) for step in steps] == list(itertools.product((1, 2), (1, 2, 3, "H")))
    assert len(steps) == model.config.steps_per_supervision
    assert steps[-1].carry is not None and steps[-1].outputs is not None
    assert torch.equal(steps[-1].carry.z_H, carry.z_H) and torch.equal(steps[-1].outputs.logits, outputs.logits)
    with torch.no_grad():
        x = model.embedding(batch["inputs"], batch["puzzle_identifiers"], torch.float32)
        states = model.cycle(model.initial_carry(batch).states, x, model.rope(x.shape[1], x.device))
    assert torch.equal(states.z_H, steps[3].z_H) and torch.equal(states.z_L, steps[3].z_L)


@pytest.mark.parametrize("variant", STEPS)
def test_a_supervision_step_goes_on_from_within(variant: str) -> None:
    """From any application on, as the debugger does when something was changed there."""
    model, batch = variant_model(variant), small_batch()
    with torch.no_grad():
        start = model.initial_carry(batch)
        steps = list(model.recurse(start, batch))
        for place, (finished, made) in enumerate([(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]):
            at = steps[place]
            carry = replace(start.going_on(), z_H=at.z_H, z_L=at.z_L, levels=at.levels)
            rest = list(model.recurse(carry, batch, done=(finished, made)))
            for one, other in zip(rest, steps[place + 1 :], strict=True):
                assert (one.h, one.l) == (other.h, other.l) and torch.equal(one.z_H, other.z_H) and torch.equal(one.z_L, other.z_L)


@pytest.mark.parametrize("variant", ["trm", *STEPS])
def test_states_set_from_outside(variant: str) -> None:
    model, batch = variant_model(variant), small_batch()
    states = model.initial_carry(batch).states
    for which in ("H", "L"):
        value = torch.randn(states.z_H.shape)
        new = changed(model.config, states, which, value)
        torch.testing.assert_close(new.z_H if which == "H" else new.z_L, value)
        if new.levels:
            assert torch.equal(new.z_L, sum(new.levels[1:], new.levels[0]))
            assert all(torch.equal(one, other) for one, other in zip(new.levels[1:], states.levels[1:], strict=True))


def test_hier6_shows_the_sum_its_net_reads() -> None:
    model, batch = variant_model("hier6"), small_batch()
    with torch.no_grad():
        for step in model.recurse(model.initial_carry(batch), batch):
            assert torch.equal(step.z_L, sum(step.levels[1:], step.levels[0]))


@pytest.mark.parametrize("variant", STEPS)
def test_a_halted_sample_restarts_and_the_others_go_on(variant: str) -> None:
    model, batch = variant_model(variant), small_batch()
    with torch.no_grad():
        first, _ = model(model.initial_carry(batch), batch)
        mixed = first.going_on()
        mixed.halted[1] = True
        second, _ = model(mixed, batch)
        alone, _ = model(first.going_on(), batch)
    torch.testing.assert_close(second.z_H[1], first.z_H[1])
    torch.testing.assert_close(second.z_H[0], alone.z_H[0])
    assert not torch.allclose(second.z_H[1], alone.z_H[1])
    assert second.steps.tolist() == [2, 1, 2]


@pytest.mark.parametrize("variant", STEPS)
def test_training_step(variant: str) -> None:
    model, batch = variant_model(variant).train(), small_batch()
    carry, outputs = model(model.initial_carry(batch), batch)
    assert carry.z_H.grad_fn is None and all(level.grad_fn is None for level in carry.levels)
    assert (outputs.target_q_continue is not None) == (variant == "hrm")  # only HRM learns the value of going on


@pytest.mark.parametrize("variant", STEPS)
def test_round_trips(tmp_path: Path, variant: str) -> None:
    model = variant_model(variant, forward_dtype="bfloat16")
    save_checkpoint(model, tmp_path / "own")
    loaded = load_checkpoint(tmp_path / "own", device="cpu")
    same(loaded, model)
    assert loaded.config == model.config
    save_official(model, tmp_path / "official", step=9)
    loaded = load_checkpoint(tmp_path / "official", device="cpu", seq_len=LENGTH)
    same(loaded, model)
    assert loaded.config == model.config
    assert loaded.details["source"] == ("HRM" if variant == "hrm" else "official")


@pytest.mark.parametrize("variant", STEPS)
def test_without_yaml(tmp_path: Path, variant: str) -> None:
    model = variant_model(variant)
    file = written(tmp_path, model)
    (tmp_path / "all_config.yaml").unlink()
    with pytest.raises(CheckpointNeeds) as caught:
        load_checkpoint(file, device="cpu")
    proposed = {"singlez": (3, 6), "hier6": (3, 6), "hrm": (2, 2)}[variant]
    assert (caught.value.proposal["H_cycles"], caught.value.proposal["L_cycles"]) == proposed
    assert ("puzzle_emb_len" in caught.value.proposal) == (variant != "hrm")
    answers = {need.name: getattr(model.config, need.name) for need in caught.value.needs}
    same(load_checkpoint(file, device="cpu", assume=answers), model)


def test_faults_by_name(tmp_path: Path) -> None:
    written(tmp_path, variant_model("hrm"), name="recursive_reasoning.trm@X")
    assert "names the architecture 'trm', but the tensors are those of hrm" in refused(tmp_path)
    file = written(tmp_path, variant_model("hrm"), H_layers=3)
    assert "4 missing: H_level.layers.2.self_attn.qkv_proj.weight" in refused(tmp_path)
    file = written(tmp_path, variant_model("hier6"))
    weights = torch.load(file, weights_only=True)
    torch.save({name: value for name, value in weights.items() if "L4_init" not in name}, file)
    assert "1 missing: L4_init" in refused(tmp_path)
    torch.save(weights | {"_orig_mod.model.inner.L7_init": torch.zeros(32)}, file)
    assert "1 tensors that trm_hier6 does not have: _orig_mod.model.inner.L7_init" in refused(tmp_path)
    written(tmp_path, variant_model("hier6"), L_cycles=7)
    assert "hier6 has 6 low states" in refused(tmp_path)


# --- in the debugger ------------------------------------------------------------------------------------------------


def puzzle_model(variant: str) -> TRM:
    """Untrained, of the bundled 6×6 Sudoku's size."""
    return variant_model(variant, vocab_size=8, seq_len=36, num_puzzle_identifiers=1, halt_max_steps=2)


@pytest.mark.parametrize("variant", STEPS)
def test_a_debugging_session(variant: str) -> None:
    model = puzzle_model(variant)
    session = Session(model, load_puzzles("sudoku-6x6")[0], policy=LaserPolicy(rank="50%"), seed=0)
    per_step = model.config.steps_per_supervision
    frames = [session.step() for _ in range(2 * per_step)]
    assert [(frame.s, frame.h, frame.l) for frame in frames] == list(itertools.product((1, 2), (1, 2), (1, 2, 3, "H")))
    assert all(frame.finite and frame.residual > 0 for frame in frames)
    if variant == "hrm":  # a net that rests has nothing to show
        assert set(frames[-1].sites) == {name for name in session.sites if name.startswith("H_level.")}
        assert set(frames[-2].sites) == {name for name in session.sites if name.startswith("L_level.")}
        assert len(session.sites) == 4 * 3
        # the ledger of a training step is of both nets at every step, once both have been applied
        assert len({frame.training.full_bytes for frame in frames[per_step // 2 :]}) == 1
        assert len({frame.training_all.full_bytes for frame in frames}) == 1
    else:
        assert all(set(frame.sites) == set(session.sites) for frame in frames)
        assert len(session.sites) == 4 * 2
    again = Session(model, load_puzzles("sudoku-6x6")[0], policy=LaserPolicy(rank="50%"), seed=0)
    again.seek(per_step + 2)
    state = session.restore(per_step + 2)
    assert torch.equal(state.z_H, again.restore(per_step + 2).z_H)


@pytest.mark.parametrize("variant", STEPS)
@pytest.mark.parametrize("state", ["H", "L"])
def test_interventions(variant: str, state: Literal["H", "L"]) -> None:
    model, puzzle, policy = puzzle_model(variant), load_puzzles("sudoku-6x6")[0], LaserPolicy(rank="50%")

    def run(*changes: ChangeState) -> Session:
        session = Session(model, puzzle, policy=policy, seed=0, course=[Planned(5, change) for change in changes])
        session.seek(12)
        return session

    plain, idle = run(), run(ChangeState(state=state, change="noise", size=0.0))
    noisy = run(ChangeState(state=state, change="noise", size=0.3))
    for step in (5, 6, 8, 12):
        exact = plain.restore(step)
        assert torch.equal(idle.restore(step).z_H, exact.z_H) and torch.equal(idle.restore(step).z_L, exact.z_L)
        same_so_far = torch.equal(noisy.restore(step).z_L, exact.z_L) and torch.equal(noisy.restore(step).z_H, exact.z_H)
        assert same_so_far == (step == 5)


@pytest.mark.parametrize("variant", STEPS)
def test_looking_into_a_step(variant: str) -> None:
    """The net application that led to a step, done again beside the run, leads to the same state; what is read off it is there."""
    session = Session(puzzle_model(variant), load_puzzles("sudoku-6x6")[0], policy=LaserPolicy(rank="50%"), seed=0)
    frames = [session.step() for _ in range(8)]
    for frame in frames[4:]:
        state = session.restore(frame.index)
        new = NetApplication(session, frame.index).run()
        if variant != "hier6" or frame.l == "H":  # of hier6 the state shown is the sum
            torch.testing.assert_close(new, (state.z_H if frame.l == "H" else state.z_L)[:1])
        assert mixing(session, 5, frame.index).exact.weights.sum(1).allclose(torch.ones(4))
    site = next(name for name in frames[-1].sites if name.endswith("0.mlp.down_proj"))
    found = directions(session, site, 8, 2)
    assert len(removals(session, found)) == 2
    if variant == "hrm":
        with pytest.raises(InspectionError, match="the other net is applied at step 8"):
            directions(session, site.replace("H_level", "L_level"), 8)


@pytest.mark.parametrize("variant", STEPS)
def test_functional_figures_of_an_exact_basis_are_exact(variant: str) -> None:
    policy, measures = LaserPolicy(rank="100%"), Measures(functional=True, gradient=True)
    session = Session(puzzle_model(variant), load_puzzles("sudoku-6x6")[0], policy=policy, measures=measures, seed=0)
    frame = next(frame for frame in (session.step() for _ in range(16)) if frame.functional is not None)
    assert frame.functional == pytest.approx(1.0, abs=1e-4) and frame.flips == 0
    assert frame.gradient == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("variant", STEPS)
def test_compressed_training_at_full_rank_gives_the_exact_gradient(variant: str) -> None:
    model, batch = variant_model(variant), small_batch()

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model(model.initial_carry(batch), batch)[1].logits.square().mean().backward()
        return {name: value.grad.clone() for name, value in model.net.named_parameters() if value.grad is not None}

    exact = gradients()
    laser = compress(model.net, LaserPolicy(rank="100%"), mode="block")
    with laser:
        gradients()  # the first window is kept exact
    laser.step()
    with laser:
        compressed = gradients()
    assert exact.keys() == compressed.keys()
    for name, value in exact.items():
        torch.testing.assert_close(compressed[name], value, rtol=0, atol=1e-4 * float(value.abs().max()))


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6", "maze-9x9-mixer-early"])
def test_what_our_trainer_wrote_goes_through_every_format(tmp_path: Path, name: str) -> None:
    model = load_checkpoint(Path("assets/checkpoints") / name, device="cpu")
    save_official(model, tmp_path / "official", step=3)
    official = load_checkpoint(tmp_path / "official", device="cpu", seq_len=model.config.seq_len)
    same(official, model)
    assert official.config == model.config
    save_checkpoint(official, tmp_path / "own", details={})
    same(load_checkpoint(tmp_path / "own", device="cpu"), model)
