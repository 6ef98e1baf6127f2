"""The session against the model itself, and its behaviour in time."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace

import pytest
import torch

from laser_studio.debugger import Frame, Session
from laser_studio.errors import PuzzleError
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM
from laser_studio.trm.stablemax import log_stablemax
from tests.debugger.conftest import tiny_model
from tests.laser.helpers import traces

POLICY = LaserPolicy(rank="25%", min_fidelity=0.9, patience=2, growth=2)


def batch_of(puzzle: Puzzle) -> dict[str, torch.Tensor]:
    ids = torch.as_tensor(get_domain(puzzle.domain).encode(puzzle))[None]
    return {"inputs": ids, "puzzle_identifiers": torch.zeros(1, dtype=torch.long)}


@pytest.mark.parametrize("mlp_t", [False, True])
def test_frames_are_the_models_own_computation(puzzle: Puzzle, mlp_t: bool) -> None:
    model = tiny_model(mlp_t=mlp_t)
    session = Session(model, puzzle, policy=POLICY)
    batch = batch_of(puzzle)
    carry = model.initial_carry(batch)
    index = 0
    z_H, z_L = carry.z_H, carry.z_L
    with torch.no_grad():
        for _ in range(model.config.halt_max_steps):
            for step in model.recurse(carry, batch):
                index += 1
                frame = session.step()
                assert (frame.index, frame.s, frame.h, frame.l) == (index, step.s, step.h, step.l)
                outputs = model.read_out(step.z_H)
                confidence, ids = log_stablemax(outputs.logits[0]).exp().max(-1)
                assert frame.answer == get_domain("sudoku").decode(ids.numpy())
                assert frame.confidence == tuple(confidence.tolist())
                assert frame.q_halt == float(outputs.q_halt_logits[0])
                moved = (step.z_H - z_H) if step.l == "H" else (step.z_L - z_L)
                assert frame.residual == float(moved.norm())
                z_H, z_L = step.z_H, step.z_L
            assert step.carry is not None
            carry = step.carry
            carry = replace(carry, halted=torch.zeros_like(carry.halted))
    assert index == session.length
    assert session.finished
    assert session.step() is session.frame  # the end of time stops, it does not fail


def test_sites_cover_every_linear_of_every_block(model: TRM, puzzle: Puzzle) -> None:
    attention = {f"layers.{n}.{s}" for n in (0, 1) for s in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")}
    mixer = {f"layers.{n}.{s}" for n in (0, 1) for s in ("mlp_t.gate_up_proj", "mlp_t.down_proj", "mlp.gate_up_proj", "mlp.down_proj")}
    assert set(Session(model, puzzle).step().sites) == attention
    assert set(Session(tiny_model(mlp_t=True), puzzle).step().sites) == mixer


def site_inputs(model: TRM, puzzle: Puzzle, steps: int) -> list[dict[str, torch.Tensor]]:
    """X of every site at every step, recorded by plain hooks on a model nobody else uses."""
    recorded: list[dict[str, torch.Tensor]] = []
    current: dict[str, torch.Tensor] = {}
    for name, module in model.net.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, args, name=name: current.__setitem__(name, args[0].reshape(-1, args[0].shape[-1]).clone())
            )
    batch = batch_of(puzzle)
    carry = model.initial_carry(batch)
    with torch.no_grad():
        while len(recorded) < steps:
            for step in model.recurse(carry, batch):
                recorded.append(dict(current))
                carry = step.carry.going_on() if step.carry is not None else carry
    return recorded


def test_fidelity_shown_is_that_of_the_stored_coefficients(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=replace(POLICY, turn=1.0))  # a turn would carry over what has just been stored
    inputs = site_inputs(tiny_model(), puzzle, session.length)
    for t in range(1, 4):  # the first window of three steps is exact
        frame = session.step()
        for name, site in frame.sites.items():
            assert site.fidelity == 1.0
            kept = session.activations(t, name)
            assert kept is not None and torch.equal(kept[0], inputs[t - 1][name])
    frame = session.step()
    for name, site in frame.sites.items():
        kept = session.activations(4, name)
        assert kept is not None
        x = inputs[3][name]
        share = float(kept[0].square().sum() / x.square().sum())
        assert site.fidelity == pytest.approx(share, rel=1e-4)
        assert 1 - float((x - kept[0]).square().sum() / x.square().sum()) == pytest.approx(share, abs=1e-4)


def test_a_basis_that_turns_early_tells_so_and_serves_the_next_step(model: TRM, puzzle: Puzzle) -> None:
    turning, waiting = (Session(model, puzzle, policy=replace(POLICY, turn=turn, min_fidelity=0.0)) for turn in (0.01, 1.0))
    first = turning.seek(4)
    events = [event for event in first.events if event.kind == "turned"]
    assert events and all(event.site is not None and event.before == first.sites[event.site].fidelity for event in events)
    assert all(first.sites[str(event.site)].angles and first.sites[str(event.site)].window_fidelity is None for event in events)
    then, otherwise = turning.seek(5), waiting.seek(5)
    assert then.mean_fidelity is not None and otherwise.mean_fidelity is not None
    assert then.mean_fidelity > otherwise.mean_fidelity + 0.02
    assert then.answer == otherwise.answer and not any(event.kind == "turned" for frame in waiting.frames for event in frame.events)


def test_with_every_direction_kept_one_basis_serves_the_run_and_the_spectrum_is_the_inputs_own(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank="100%", min_fidelity=1.0))
    last = session.run()
    inputs = site_inputs(tiny_model(), puzzle, session.length)
    for name, site in last.sites.items():
        assert (site.versions, site.rank, site.carried, site.action) == (1, site.dim, 0, "keep")
        assert site.fidelity == pytest.approx(1, abs=1e-6) and site.retained == pytest.approx(1, abs=1e-6)
        kept, shares = session.activations(last.index, name), session.spectra(name, last.index, last.index + 1)[0]
        x = inputs[last.index - 1][name]
        true = torch.linalg.svdvals(x.double()).square()
        assert kept is not None and torch.allclose(kept[0], x, rtol=1e-4, atol=1e-4)
        assert shares is not None and shares == pytest.approx((true / true.sum()).tolist(), rel=6e-3, abs=1e-6)  # three digits
    turned = [site.angles for frame in session.frames for site in frame.sites.values() if site.angles is not None]
    assert turned and not any(any(angles) for angles in turned)


def test_what_history_retains_is_what_it_says(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.run()
    inputs = site_inputs(tiny_model(), puzzle, session.length)
    for name, site in session.frame.sites.items():
        kept_energy = energy = 0.0
        for t in range(1, session.length + 1):
            stored = session.activations(t, name)
            assert stored is not None
            x = inputs[t - 1][name]
            share = float(stored[0].square().sum() / x.square().sum())
            assert stored[1] == pytest.approx(share, rel=1e-3)
            kept_energy += float(stored[0].square().sum())
            energy += float(x.square().sum())
        assert site.retained == pytest.approx(kept_energy / energy, rel=1e-3)
        assert site.history.full_bytes == sum(x[name].nbytes for x in inputs)


def test_equal_runs_give_equal_frames_and_other_weights_others(model: TRM, puzzle: Puzzle) -> None:
    def frames(m: TRM) -> list[Frame]:
        session = Session(m, puzzle, policy=POLICY, seed=5)
        session.run()
        return list(session.frames)

    first = frames(model)
    assert first == frames(model)
    other = frames(tiny_model(seed=1))
    assert [f.q_halt for f in first] != [f.q_halt for f in other]
    assert [f.sites["layers.0.mlp.down_proj"].fidelity for f in first[4:]] != [
        f.sites["layers.0.mlp.down_proj"].fidelity for f in other[4:]
    ]


def test_back_and_seek_show_recorded_frames(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(10)
    recorded = list(session.frames)
    assert session.back() is recorded[9]
    assert session.seek(2) is recorded[2]
    assert session.step() is recorded[3]
    assert session.restart() is recorded[0]
    assert session.back() is recorded[0]
    assert session.seek(-5) is recorded[0]
    assert session.seek(10_000).index == session.length
    assert session.epoch == 0


def test_a_changed_policy_acts_from_the_next_step_and_replays_exactly(model: TRM, puzzle: Puzzle) -> None:
    stricter = replace(POLICY, min_fidelity=0.9999, patience=1)
    straight = Session(model, puzzle, policy=POLICY)
    straight.seek(9)
    straight.set_policy(stricter)
    straight.run()

    wandering = Session(model, puzzle, policy=POLICY)
    wandering.seek(17)
    wandering.seek(9)
    shown = wandering.frame
    wandering.set_policy(stricter)
    assert wandering.head == 9 and wandering.epoch == 1 and wandering.frame is shown
    wandering.run()
    assert list(wandering.frames) == list(straight.frames)
    plain = Session(model, puzzle, policy=POLICY)
    plain.run()
    assert list(plain.frames[:10]) == list(straight.frames[:10])
    assert plain.frames[-1].sites != straight.frames[-1].sites
    assert [f.answer for f in plain.frames] == [f.answer for f in straight.frames]  # the tracker only watches
    assert straight.frame.resets > 0


def test_setting_the_same_policy_changes_nothing(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(8)
    session.seek(3)
    session.set_policy(POLICY)
    assert session.head == 8 and session.epoch == 0


@pytest.mark.parametrize(
    ("until", "holds"),
    [
        ("cycle", lambda f: f.l == "H"),
        ("supervision", lambda f: f.index % 6 == 0),
        ("answer_changed", lambda f: bool(f.changed)),
        (lambda f: f.index == 7, lambda f: f.index == 7),
    ],
)
def test_run_stops_at_the_first_frame_where_the_condition_holds(model: TRM, puzzle: Puzzle, until: object, holds: object) -> None:
    session = Session(model, puzzle, policy=POLICY)
    frame = session.run(until=until)  # type: ignore[arg-type]
    assert holds(frame)  # type: ignore[operator]
    assert not any(holds(f) for f in session.frames[1 : frame.index])  # type: ignore[operator]


def test_run_until_reset_names_site_and_cause(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=replace(POLICY, min_fidelity=1.0, patience=1))
    frame = session.run(until="reset")
    events = [event for event in frame.events if event.kind == "reset"]
    assert events and frame.resets == len(events)
    for event in events:
        assert event.site in frame.sites and event.before is not None and event.before < 1.0
        assert event.after is not None and event.after >= event.before - 1e-6
        assert event.site is not None and frame.sites[event.site].action == "reset"


def test_unknown_condition_is_refused_with_the_list(model: TRM, puzzle: Puzzle) -> None:
    with pytest.raises(ValueError, match="answer_changed"):
        Session(model, puzzle).run(until="explosion")


def test_past_the_trained_depth_only_when_asked(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY, beyond=True)
    assert session.run(max_steps=session.length + 5).index == session.length + 5
    assert session.frame.s == model.config.halt_max_steps + 1
    with pytest.raises(ValueError, match="until"):
        session.run()


def test_two_sessions_in_two_threads_equal_their_solo_runs(model: TRM, puzzle: Puzzle) -> None:
    other = get_domain("sudoku").generate(8, size=4, difficulty="hard")
    policies = {puzzle: POLICY, other: replace(POLICY, rank=5, seed=3)}

    def run(p: Puzzle) -> list[Frame]:
        session = Session(model, p, policy=policies[p])
        session.run()
        return list(session.frames)

    solo = {p: run(p) for p in policies}
    together: dict[Puzzle, list[Frame]] = {}
    threads = [threading.Thread(target=lambda p=p: together.__setitem__(p, run(p))) for p in policies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == solo


def test_the_users_model_and_generator_stay_untouched(model: TRM, puzzle: Puzzle) -> None:
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    session = Session(model, puzzle, policy=POLICY)
    session.run()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert traces(model) == 0
    assert torch.is_grad_enabled()


def test_a_closed_session_is_freed(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(8)
    machine = weakref.ref(session._machine)
    session.close()
    del session
    gc.collect()
    assert machine() is None


def test_history_stays_within_its_budget_and_says_so(model: TRM, puzzle: Puzzle) -> None:
    budget = 400_000  # the exact first window fits, the whole run does not
    session = Session(model, puzzle, policy=POLICY, history_bytes=budget, beyond=True)
    session.run(max_steps=120)
    held = session.frame.history
    assert held.stored_bytes + held.basis_bytes <= budget
    assert session.dropped_before > 1
    assert session.activations(1, "layers.0.mlp.down_proj") is None
    assert session.activations(120, "layers.0.mlp.down_proj") is not None
    said = [event.text for frame in session.frames for event in frame.events if event.kind == "budget"]
    assert said and "compressed" in said[0]


@pytest.mark.parametrize(("size", "words"), [(6, "36 cells"), (9, "81 cells")])
def test_a_puzzle_that_does_not_fit_is_refused_by_size(model: TRM, size: int, words: str) -> None:
    with pytest.raises(PuzzleError, match=words):
        Session(model, get_domain("sudoku").generate(0, size=size, difficulty="easy"))


def test_weights_that_are_not_finite_end_the_run_with_an_event(puzzle: Puzzle) -> None:
    model = tiny_model()
    with torch.no_grad():
        dict(model.net.named_parameters())["layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    session = Session(model, puzzle, policy=POLICY)
    frame = session.run()
    assert frame.index == 1 and not frame.finite and session.finished
    assert frame.events[-1].kind == "not finite" and "step 1" in frame.events[-1].text


def test_json_of_a_frame_is_plain_and_complete(model: TRM, puzzle: Puzzle) -> None:
    import json

    session = Session(model, puzzle, policy=POLICY)
    frame = session.seek(6)
    data = json.loads(json.dumps(frame.to_json(), allow_nan=False))
    assert data["index"] == 6 and data["history"]["saving"] == frame.history.saving
    site = data["sites"]["layers.1.mlp.down_proj"]
    assert site["fidelity"] == frame.sites["layers.1.mlp.down_proj"].fidelity
    assert len(site["angles"]) == min(site["rank"], len(site["angles"])) > 0
    row = json.loads(json.dumps(frame.to_row(), allow_nan=False))
    assert row["sites"]["layers.1.mlp.down_proj"][0] == site["fidelity"]


@pytest.mark.parametrize("mlp_t", [False, True])
def test_training_ledger_is_what_autograd_really_saves(puzzle: Puzzle, mlp_t: bool) -> None:
    model = tiny_model(mlp_t=mlp_t)
    session = Session(model, puzzle, policy=LaserPolicy(rank=4, min_fidelity=0.0))
    first, last = session.step(), session.run()
    batch, applications = 64, model.config.L_cycles + 1
    for name, inputs in site_inputs(tiny_model(mlp_t=mlp_t), puzzle, 1)[0].items():
        rows, dim = inputs.shape
        line = last.sites[name].training
        assert line.full_bytes == rows * dim * 4 * batch * applications
        assert line.stored_bytes == rows * 4 * 4 * batch * applications
        assert line.basis_bytes == dim * 4 * 4
    assert first.training_all.saving == 0.0  # nothing is freed before there is a basis
    # An independent count of the same: one application under plain saved-tensor hooks, storages counted once.
    storages: dict[int, torch.UntypedStorage] = {}
    skip = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers(), *(model.rope(18, torch.device("cpu")) or ()))}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in skip:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    z = torch.randn(1, 18, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model.net(z, torch.randn(1, 18, 32), model.rope(18, torch.device("cpu")))
    assert last.training_all.full_bytes == sum(s.nbytes() for s in storages.values()) * batch * applications
    assert 0 < last.training_all.saving < last.training.saving
    del out


def test_a_bf16_history_counts_in_bf16(puzzle: Puzzle) -> None:
    config = replace(tiny_model().config, forward_dtype="bfloat16")
    session = Session(TRM(config, seed=0), puzzle, policy=POLICY)
    frame = session.seek(8)
    for name, inputs in site_inputs(tiny_model(), puzzle, 1)[0].items():
        assert frame.sites[name].history.full_bytes == 8 * inputs.numel() * 2
        rebuilt, kept = session.activations(8, name)  # type: ignore[misc]
        assert rebuilt.shape == inputs.shape and 0 < kept <= 1
