"""The tracker: what it reports, what it refuses, and every move of the rule on real activations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from laser_studio.errors import LaserStudioError, PolicyError
from laser_studio.laser import LaserPolicy, SubspaceTracker
from laser_studio.laser.event import Window
from laser_studio.laser.linalg import ones, principal_angles
from tests.laser.helpers import DEVICES, best_fidelity, fidelity, normal, orthonormality_error, rotation, rows_in, window

D = 48
FRAME = rotation(D, 0)
EVEN = torch.ones(D)


def inside(first: int, last: int, seed: int, rows: int = 120) -> Tensor:
    """Rows spread evenly over columns first … last − 1 of a fixed frame."""
    return rows_in(FRAME[:, first:last], EVEN[first:last], rows, seed)


def started(**settings: object) -> SubspaceTracker:
    """A tracker whose basis is the first 8 columns of the frame, kept exactly by what it has seen."""
    tracker = SubspaceTracker(D, LaserPolicy(**{"rank": 8, "min_fidelity": 0.9, "growth": 4, **settings}))  # type: ignore[arg-type]
    window(tracker, inside(0, 8, 1))
    return tracker


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [30, 300])
def test_the_first_window_is_exact_and_starts_the_basis_by_svd(rows: int, device: str) -> None:
    x = rows_in(FRAME, torch.logspace(0, -1, D), rows, 2).to(device)
    tracker = SubspaceTracker(D, LaserPolicy(rank=10))
    assert (tracker.holds_window, tracker.basis, tracker.rank) == (True, None, 0)
    for part in x.split(10):
        event = tracker.observe(part)
        assert (event.cause, event.coefficients, event.fidelity, event.rank, event.state) == (
            "first window kept exact",
            None,
            1.0,
            0,
            "warming",
        )
    event = tracker.refresh()
    assert (event.cause, event.action, event.rank, event.previous_rank, event.fidelity) == ("basis started by SVD", "keep", 10, 0, 1.0)
    assert event.closes and event.state == "tracking" and event.basis is None and event.angles is None
    basis = tracker.basis
    assert basis is not None and basis.shape == (D, 10) and basis.dtype == torch.float32 and basis.device == x.device
    top = torch.linalg.svd(x.double(), full_matrices=False)[2][:10].T
    torch.testing.assert_close(basis.double() @ basis.double().T, top @ top.T, rtol=0, atol=1e-4)  # the same subspace
    assert event.fidelity_after == pytest.approx(best_fidelity(x, 10), abs=1e-5)
    assert event.best_fidelity == pytest.approx(best_fidelity(x, 10), abs=1e-5)


def test_stored_coefficients_and_their_fidelities() -> None:
    tracker = started(min_fidelity=0.0)
    basis = tracker.basis
    assert basis is not None
    x, y = inside(0, 12, 3).view(10, 12, D) + 0.3, inside(4, 20, 4)
    first, second = tracker.observe(x), tracker.observe(y)
    closing = tracker.refresh()
    flat = x.reshape(-1, D)
    assert first.coefficients is not None and second.coefficients is not None
    torch.testing.assert_close(first.coefficients, flat @ basis)
    torch.testing.assert_close(tracker_decode(basis, first.coefficients), flat @ basis @ basis.T)
    assert first.fidelity == pytest.approx(fidelity(flat, basis), abs=1e-6)
    assert second.fidelity == pytest.approx(fidelity(y, basis), abs=1e-6)
    both = torch.cat((flat, y))
    assert closing.fidelity == pytest.approx(fidelity(both, basis), abs=1e-6)
    assert first.centred_fidelity == pytest.approx(fidelity(flat - flat.mean(0), basis), abs=1e-5)
    assert closing.centred_fidelity == pytest.approx(fidelity(both - both.mean(0), basis), abs=1e-5)
    assert closing.coefficients is None and closing.basis is basis and closing.new_basis is tracker.basis
    assert first.spectrum is not None and sum(first.spectrum) == pytest.approx(first.fidelity, abs=1e-6)
    assert not first.closes and first.new_basis is None and first.angles is None and first.fidelity_after is None


@pytest.mark.parametrize("measure", ["energy", "centred"])
def test_reported_fidelity_is_that_of_what_is_stored(measure: str) -> None:
    tracker = started(measure=measure, patience=2, min_fidelity=0.8)
    for number in range(8):
        stored = full = 0.0
        for part in range(4):
            x = inside(number, 20 + number, 80 + 4 * number + part, rows=200) + 0.2
            event = tracker.observe(x)
            assert event.coefficients is not None
            kept, whole = (float(one.double().square().sum()) for one in (event.coefficients, x))
            assert event.fidelity == pytest.approx(kept / whole, abs=5e-7)
            stored, full = stored + kept, full + whole
        closing = tracker.refresh()
        assert closing.fidelity == pytest.approx(stored / full, abs=5e-7)
        assert closing.energy == pytest.approx(full, rel=1e-6)


def tracker_decode(basis: Tensor, coefficients: Tensor) -> Tensor:
    tracker = SubspaceTracker(D, LaserPolicy(rank=8))
    tracker.restore(replace(tracker.snapshot(), basis=basis))
    return tracker.decode(coefficients)


def test_coefficients_keep_nothing_else_alive() -> None:
    event = started().observe(inside(0, 8, 5))
    assert event.coefficients is not None
    assert event.coefficients.untyped_storage().nbytes() == 120 * 8 * 4


def test_a_hit_keeps_and_turns_the_basis() -> None:
    tracker = started()
    x = inside(0, 8, 6) + 0.05 * inside(8, 16, 7)
    event = window(tracker, x)
    assert (event.action, event.cause, event.rank) == ("keep", "F ≥ ε", 8)
    assert event.angles is not None and len(event.angles) == 8
    assert 0 < event.angles[-1] <= event.angles[0] < 10
    assert event.new_basis is not None and event.basis is not None
    assert fidelity(x, event.new_basis) > fidelity(x, event.basis)
    assert event.fidelity_after is not None
    assert event.fidelity_after == pytest.approx(fidelity(x, event.new_basis), abs=1e-3)
    assert event.fidelity_after <= fidelity(x, event.new_basis) + 1e-6


def test_misses_grow_from_the_residual() -> None:
    tracker = started(patience=5)
    x = inside(0, 16, 8)
    events = [window(tracker, x) for _ in range(3)]
    assert [(e.action, e.cause, e.previous_rank, e.rank, e.misses) for e in events[:2]] == [
        ("grow", "miss 1 of 5: grew by 4", 8, 12, 1),
        ("grow", "miss 2 of 5: grew by 4", 12, 16, 2),
    ]
    assert (events[2].action, events[2].misses) == ("keep", 0)
    assert events[2].fidelity > 0.999  # all of the 8 directions added lie where the residual was


def test_growth_stops_at_the_largest_rank() -> None:
    tracker = started(max_rank=10, patience=5)
    events = [window(tracker, inside(0, 30, 9)) for _ in range(2)]
    assert [(e.action, e.rank) for e in events] == [("grow", 10), ("keep", 10)]
    assert events[1].cause == "miss 2 of 5: rank 10 is the largest allowed"


def test_patience_ends_in_a_reset_at_the_smallest_rank_that_reaches_and_then_rests() -> None:
    tracker = started(patience=2, growth=1)
    x = rows_in(FRAME[:, 20:40], torch.logspace(0, -1.5, 20), 200, 10)
    held_at_first = tracker.holds_window
    first = window(tracker, x)
    assert (held_at_first, first.action, tracker.holds_window) == (False, "grow", True)
    event = window(tracker, x)
    smallest = next(r for r in range(1, D) if best_fidelity(x, r) >= 0.9)
    assert (event.action, event.cause, event.rank) == ("reset", "reset by SVD after 2 misses", smallest)
    assert smallest < event.previous_rank  # a reset may shrink
    assert (event.state, event.misses) == ("resting", 0)
    assert event.fidelity_after == pytest.approx(best_fidelity(x, smallest), abs=1e-5)
    assert event.best_fidelity == pytest.approx(best_fidelity(x, event.previous_rank), abs=1e-5)

    other = inside(0, 8, 11)  # a second swap right away: only growth until the rest is over
    rest = [window(tracker, other) for _ in range(2)]
    assert [e.action for e in rest] == ["grow", "grow"]
    assert all("resting after a reset" in e.cause for e in rest)
    assert (rest[-1].state, tracker.holds_window) == ("tracking", True)


def test_every_miss_resets_where_patience_is_one() -> None:
    tracker = started(patience=1)
    assert tracker.holds_window
    assert window(tracker, inside(20, 24, 12)).cause == "reset by SVD after a miss"
    assert not tracker.holds_window


def test_out_of_reach_is_said_and_waited_out() -> None:
    tracker = started(patience=2, max_rank=10)
    x = inside(0, 40, 13, rows=400)
    assert window(tracker, x).action == "grow"
    event = window(tracker, x)
    best = best_fidelity(x, 10)
    assert (event.action, event.state, event.rank) == ("reset", "saturated", 10)
    assert event.cause == f"saturated: best F {best:.2f} at rank 10"
    for _ in range(5):
        assert not tracker.holds_window
        event = window(tracker, x)
        assert (event.action, event.state, event.rank, event.misses) == ("keep", "saturated", 10, 0)
        assert "saturated" in event.cause
    moved = window(tracker, inside(0, 30, 14, rows=400))
    assert (moved.state, moved.misses) == ("tracking", 1)


def test_saturation_ends_when_the_fidelity_is_met_or_the_policy_changes() -> None:
    tracker = started(patience=2, max_rank=10)
    for _ in range(2):
        window(tracker, inside(0, 40, 15, rows=400))
    saturated = tracker.snapshot()
    basis = tracker.basis
    assert tracker.state == "saturated" and basis is not None
    event = window(tracker, normal(50, 10, seed=16) @ basis.T)
    assert (event.state, event.cause) == ("tracking", "F ≥ ε")

    tracker.restore(saturated)
    tracker.set_policy(replace(tracker.policy, max_rank=None))
    event = window(tracker, inside(0, 40, 15, rows=400))
    assert (event.state, event.action, event.rank) == ("tracking", "grow", 14)


def test_saturation_while_resting_needs_proof_from_the_sketch() -> None:
    settings = {"patience": 2, "max_rank": 10}
    hopeless = started(**settings)
    for _ in range(2):
        window(hopeless, inside(20, 30, 17))  # 10 directions: the reset reaches ε at the largest rank
    assert hopeless.state == "resting" and hopeless.rank >= 9
    hopeless_window = inside(0, 40, 18, rows=400)
    events = [window(hopeless, hopeless_window) for _ in range(3)]
    assert any(e.state == "saturated" and e.action == "keep" and e.cause.startswith("saturated: best F") for e in events)


@pytest.mark.parametrize(("rank", "action"), [(5, "keep"), (11, "grow"), (40, "grow"), (200, "grow")])
def test_a_rank_that_is_set_is_gone_to_at_the_next_refresh(rank: int, action: str) -> None:
    tracker = started(min_fidelity=0.0)
    x = rows_in(FRAME[:, :40], torch.logspace(0, -1.5, 40), 200, 19)
    window(tracker, x)
    before = tracker.rank
    tracker.set_policy(replace(tracker.policy, rank=rank))
    assert tracker.rank == before
    event = window(tracker, x)
    assert (event.action, event.cause, event.rank) == (action, f"rank set to {min(rank, D)}", min(rank, D))
    assert event.new_basis is not None and orthonormality_error(event.new_basis) < 1e-5
    if rank < before:  # the weakest go
        assert fidelity(x, event.new_basis) > 0.98 * best_fidelity(x, rank)
    assert "rank set" not in window(tracker, x).cause


def test_a_lower_maximum_cuts_the_rank() -> None:
    tracker = started(patience=9)
    for _ in range(2):
        window(tracker, inside(0, 40, 20))
    assert tracker.rank == 16
    tracker.set_policy(replace(tracker.policy, max_rank=9))
    event = window(tracker, inside(0, 40, 21))
    assert (event.rank, event.action, event.cause) == (9, "keep", "rank cut to max_rank 9")


def test_a_change_of_settings_ends_rest_and_forgets_misses() -> None:
    tracker = started(patience=1)
    window(tracker, inside(20, 24, 22))
    before = tracker.state
    tracker.set_policy(replace(tracker.policy, min_fidelity=0.8))
    assert (before, tracker.state, tracker.holds_window) == ("resting", "tracking", True)
    tracker.set_policy(tracker.policy)  # no change
    with pytest.raises(PolicyError, match="below its rank"):
        tracker.set_policy(LaserPolicy(rank="50%", max_rank=3))


def test_release_gives_back_directions_that_are_not_needed() -> None:
    tracker = started(patience=2, release=True)
    for _ in range(3):
        window(tracker, inside(0, 20, 23))
    grown = tracker.rank
    assert grown > 12
    events = [window(tracker, inside(0, 10, 24 + i)) for i in range(3)]
    released = next(e for e in events if e.rank < e.previous_rank)
    assert released.action == "keep" and "not needed for 2 windows" in released.cause
    assert 9 <= tracker.rank <= 10
    assert window(tracker, inside(0, 10, 30)).fidelity > 0.95
    for i in range(4):
        window(tracker, inside(0, 2, 31 + i))
    assert tracker.rank == 8  # never below the policy's rank


def test_the_rule_can_read_the_centred_fidelity() -> None:
    mean = 20 * FRAME[:, :1].T
    x = mean + inside(10, 14, 40)
    energy, centred = (started(measure=measure, patience=1) for measure in ("energy", "centred"))
    for tracker in (energy, centred):
        window(tracker, inside(0, 8, 41) + mean)
        event = window(tracker, x)
        assert event.fidelity > 0.95
        assert event.centred_fidelity < 0.3
        assert event.action == ("keep" if tracker is energy else "reset")
    assert window(centred, x).centred_fidelity > 0.9


def test_windows_of_one_step_close_themselves() -> None:
    tracker = SubspaceTracker(D, LaserPolicy(rank=8, min_fidelity=0.9, growth=4, refresh="step"))
    event = tracker.observe(inside(0, 8, 50))
    assert (event.closes, event.cause, event.rank, event.coefficients) == (True, "basis started by SVD", 8, None)
    basis, x = tracker.basis, inside(0, 12, 51)
    assert basis is not None
    event = tracker.observe(x)
    assert (event.closes, event.action, event.previous_rank, event.rank) == (True, "grow", 8, 12)
    torch.testing.assert_close(event.coefficients, x @ basis)
    assert event.fidelity == pytest.approx(fidelity(x, basis), abs=1e-6)
    assert tracker.refresh().cause == "nothing observed"


@pytest.mark.parametrize("refresh", ["step", "cycle"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_is_left_out(bad: float, refresh: str) -> None:
    tracker, clean = started(refresh=refresh), started(refresh=refresh)
    x = inside(0, 10, 52)
    broken = x.clone()
    broken[3, 5] = bad
    event = tracker.observe(broken)
    assert (event.cause, event.fidelity, event.centred_fidelity, event.action, event.coefficients) == ("not finite", 0.0, 0.0, "keep", None)
    assert not event.closes and event.spectrum is None
    for one in (tracker, clean):
        one.observe(x)
        if one is tracker:
            one.observe(broken)
        one.refresh()
    assert torch.equal(tracker.basis, clean.basis)  # type: ignore[arg-type]


def test_a_first_window_that_is_not_finite_is_waited_out() -> None:
    tracker = SubspaceTracker(D, LaserPolicy(rank=4))
    event = window(tracker, torch.full((5, D), float("nan")))
    assert (event.cause, event.fidelity, event.state, event.rank) == ("nothing observed", 1.0, "warming", 0)
    assert window(tracker, inside(0, 8, 53), torch.full((5, D), float("nan"))).rank == 4


def test_an_empty_window_changes_nothing() -> None:
    tracker = started()
    before = tracker.snapshot()
    event = tracker.refresh()
    assert (event.action, event.fidelity, event.rank, event.cause, event.window) == ("keep", 1.0, 8, "nothing observed", 1)
    assert tracker.snapshot() is before
    assert SubspaceTracker(D, LaserPolicy()).refresh().fidelity == 1.0


@pytest.mark.parametrize("x", [torch.zeros(6, D), torch.ones(6, D), torch.ones(1, D), torch.zeros(0, D), torch.eye(D)[:1] * 1e-3], ids=str)
@pytest.mark.parametrize("measure", ["energy", "centred"])
def test_degenerate_windows_give_no_nan(x: Tensor, measure: str) -> None:
    for tracker in (started(measure=measure), SubspaceTracker(D, LaserPolicy(rank=3, patience=1, measure=measure))):  # type: ignore[arg-type]
        for _ in range(5):
            observed, closing = tracker.observe(x), tracker.refresh()
            for event in (observed, closing):
                figures = [
                    event.fidelity,
                    event.centred_fidelity,
                    event.fidelity_after or 0.0,
                    *(event.spectrum or ()),
                    *(event.angles or ()),
                ]
                assert all(value == value and value >= 0 for value in figures)
            if not x.any():
                assert observed.fidelity == closing.fidelity == closing.centred_fidelity == 1.0
        if tracker.basis is not None:
            assert orthonormality_error(tracker.basis) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_tracked_in_fp32(dtype: torch.dtype) -> None:
    tracker, reference = started(), started()
    x = inside(0, 12, 54).to(dtype)
    event, expected = tracker.observe(x), reference.observe(x.float())
    assert event.coefficients is not None and event.coefficients.dtype == torch.float32
    assert torch.equal(event.coefficients, expected.coefficients)  # type: ignore[arg-type]
    assert tracker.refresh().rank == reference.refresh().rank
    assert torch.equal(tracker.basis, reference.basis)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(4, D, dtype=torch.long), "float tensors, got torch.int64"),
        (torch.ones(4, D, dtype=torch.complex64), "float tensors, got torch.complex64"),
        ([[1.0] * D], "float tensors, got list"),
        (torch.ones(4, D + 1), rf"last axis is {D}, got shape \(4, {D + 1}\)"),
        (torch.tensor(1.0), r"got shape \(\)"),
    ],
)
def test_what_cannot_be_tracked_is_refused(x: Tensor, message: str) -> None:
    with pytest.raises(LaserStudioError, match=message):
        SubspaceTracker(D, LaserPolicy(), name="a").observe(x)


def test_another_device_is_refused() -> None:
    with pytest.raises(LaserStudioError, match="lives on meta"):
        SubspaceTracker(D, LaserPolicy(), device="meta").observe(torch.ones(4, D))


@pytest.mark.parametrize("rows", [2, 37, 100, 333, 500, 1001])
def test_rows_that_are_all_alike_have_nothing_to_centre(rows: int) -> None:
    tracker = started(measure="centred", patience=1)
    event = window(tracker, inside(0, 40, 63, rows=1).expand(rows, D))
    assert event.fidelity < 0.6
    assert (event.centred_fidelity, event.action) == (1.0, "keep")


def test_rounding_beyond_the_mean_is_nothing() -> None:
    # ‖x‖² is one fp32 step above what the mean row accounts for; the basis keeps half of the mean.
    sums = Window((50.0, 100.00001, 4), [torch.tensor([12.0, 0.0]), torch.tensor([8.0, 0.0])])
    assert sums.centred_fidelity(torch.full((2, 1), 0.5**0.5)) == 1.0


def test_energies_are_summed_to_fp32_rounding() -> None:
    x = normal(8000, 96, seed=64)
    event = SubspaceTracker(96, LaserPolicy()).observe(x)
    assert event.sums.values[1] == pytest.approx(float(x.double().square().sum()), rel=2e-7)


def test_encode_and_decode() -> None:
    tracker = SubspaceTracker(D, LaserPolicy(rank=8))
    with pytest.raises(LaserStudioError, match="no basis before"):
        tracker.encode(torch.ones(2, D))
    window(tracker, inside(0, 8, 55))
    x = inside(0, 8, 56)
    torch.testing.assert_close(tracker.decode(tracker.encode(x)), x, rtol=1e-4, atol=1e-5)
    with pytest.raises(LaserStudioError, match="of rank 8"):
        tracker.decode(torch.ones(2, 7))


def test_a_complete_basis_is_exact() -> None:
    tracker = SubspaceTracker(D, LaserPolicy(rank="100%", min_fidelity=1.0, patience=1))
    window(tracker, normal(20, D, seed=57))
    for seed in range(4):
        x = normal(70, D, seed=seed)
        event = window(tracker, x)
        assert (event.action, event.rank, event.cause) == ("keep", D, "F ≥ ε")
        assert event.fidelity == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(tracker.decode(tracker.encode(x)), x, rtol=1e-4, atol=1e-4)


def complete(**settings: object) -> SubspaceTracker:
    """A tracker whose basis spans the whole space, about half of it directions that its first window did not have."""
    tracker = SubspaceTracker(D, LaserPolicy(**{"rank": "100%", "min_fidelity": 1.0, **settings}))  # type: ignore[arg-type]
    window(tracker, inside(0, 20, 72))
    return tracker


@pytest.mark.parametrize("refresh", ["step", "cycle"])
def test_a_complete_basis_is_not_turned_and_its_figures_are_exact(refresh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = complete(refresh=refresh)
    basis = tracker.basis
    monkeypatch.setattr("laser_studio.laser.tracker.turned", None)  # no QR is asked for
    for rows in (20, 200):
        x = rows_in(FRAME, torch.logspace(0, -2, D), rows, 73)
        observed = tracker.observe(x)
        closing = observed if refresh == "step" else tracker.refresh()
        assert tracker.basis is basis and closing.basis is basis and closing.new_basis is basis
        assert (closing.closes, closing.action, closing.cause, closing.rank) == (True, "keep", "F ≥ ε", D)
        assert closing.fidelity == pytest.approx(1, abs=1e-6) and closing.fidelity_after == 1.0
        assert closing.angles == (0.0,) * D
        true = torch.linalg.svdvals(x.double()).square()
        true = (true / true.sum())[: min(rows, D)].tolist()
        assert observed.shares is not None
        assert observed.shares.sort(descending=True).values.tolist() == pytest.approx(true, abs=1e-6)
        assert closing.spectrum is not None and closing.spectrum[: len(true)] == pytest.approx(true, abs=1e-5)


def test_a_complete_basis_never_turns_within_a_window() -> None:
    tracker = complete(turn=0.0)
    tracker.restore(replace(tracker.snapshot(), reference=2.0))  # whatever an observation keeps, it fell
    assert tracker.turn(tracker.observe(inside(20, 40, 74))) is None


@pytest.mark.parametrize("settings", [{"rank": 8, "min_fidelity": 0.9}, {"rank": 4, "max_rank": 8, "min_fidelity": 0.9}])
def test_from_a_complete_basis_the_leading_directions_are_kept(settings: dict) -> None:
    tracker = complete()
    x = rows_in(FRAME, torch.logspace(0, -2, D), 200, 75)
    window(tracker, x)
    tracker.set_policy(replace(tracker.policy, **settings))
    event = window(tracker, x)
    assert (event.previous_rank, event.rank) == (D, settings["rank"])
    assert event.new_basis is not None and fidelity(x, event.new_basis) > 0.999 * best_fidelity(x, settings["rank"])


def test_a_complete_basis_can_release_what_is_not_needed_and_be_grown_to() -> None:
    tracker = complete(rank=40, release=True, patience=2, growth=8, min_fidelity=0.99)
    for seed in range(2):
        event = window(tracker, inside(0, D, seed, rows=300))
    assert event.rank == tracker.rank == D and event.fidelity_after == 1.0  # grown, and nothing is left outside
    for seed in range(2):
        event = window(tracker, inside(0, 4, seed))
    assert (event.previous_rank, event.rank, event.action) == (D, 40, "keep")
    assert event.new_basis is not None and fidelity(inside(0, 4, 5), event.new_basis) > 0.9999


def test_activations_are_held_only_where_a_reset_may_come() -> None:
    tracker = started(patience=3)
    held = []
    for _ in range(4):
        held.append(tracker.holds_window)
        window(tracker, inside(20, 48, 58))
    assert held == [False, False, True, False]


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers treat CPU tensors as those of a GPU, whose values cannot be had without waiting."""
    for module in ("event", "tracker"):
        monkeypatch.setattr(f"laser_studio.laser.{module}.free_to_read", lambda _: False)


@pytest.mark.usefixtures("as_on_a_device")
def test_an_observation_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a value was read on the host")

    trackers = [SubspaceTracker(D, LaserPolicy()), started(), started(patience=1)]  # warming, tracking, holding its window
    x = inside(0, 8, 62)
    with monkeypatch.context() as patch:
        for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
            patch.setattr(torch.Tensor, name, refuse)
        for tracker in trackers:
            for _ in range(2):
                tracker.observe(x)
        with pytest.raises(AssertionError, match="read on the host"):
            trackers[1].refresh()
    assert trackers[1].refresh().fidelity > 0.9


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize("refresh", ["step", "cycle"])
def test_what_is_not_finite_is_left_out_without_a_look_at_it(refresh: str) -> None:
    tracker, clean = started(refresh=refresh, min_fidelity=0.5), started(refresh=refresh, min_fidelity=0.5)
    x, broken = inside(0, 10, 52), torch.full((3, D), float("nan"))
    assert tracker.observe(broken).cause == "not finite"
    for one in (tracker, clean):
        one.observe(x)
        if one is tracker:
            one.observe(broken)
        one.refresh()
    assert torch.equal(tracker.basis, clean.basis)  # type: ignore[arg-type]


def test_many_observations_of_one_window_are_gathered() -> None:
    tracker = started(patience=9)
    parts = [inside(0, 20, seed, rows=3) for seed in range(150)]
    for part in (*parts, torch.full((2, D), float("nan"))):
        tracker.observe(part)
    x = torch.cat(parts)
    before = tracker.basis
    event = tracker.refresh()
    assert before is not None and len(tracker.snapshot().open.parts) == 0
    assert event.fidelity == pytest.approx(fidelity(x, before), abs=1e-6)
    assert event.centred_fidelity == pytest.approx(fidelity(x - x.mean(0), before), abs=1e-5)
    assert event.sums.values[2] == 450
    assert event.action == "grow" and event.new_basis is not None
    assert fidelity(FRAME[:, :20].T, event.new_basis) > 0.59  # 12 of 20 directions


def test_a_host_that_changes_its_input_later_does_not_change_what_was_held() -> None:
    x = inside(0, 8, 59)
    tracker, reference = SubspaceTracker(D, LaserPolicy(rank=8)), SubspaceTracker(D, LaserPolicy(rank=8))
    reference.observe(x.clone())
    tracker.observe(x)
    x.zero_()
    tracker.refresh()
    reference.refresh()
    assert torch.equal(tracker.basis, reference.basis)  # type: ignore[arg-type]


def test_kept_windows_always_know_their_best() -> None:
    tracker = SubspaceTracker(D, LaserPolicy(rank=8, min_fidelity=0), keep_windows=True)
    for seed in range(3):
        x = rows_in(FRAME, torch.logspace(0, -1, D), 100, seed)
        event = window(tracker, x)
        assert event.best_fidelity == pytest.approx(best_fidelity(x, 8), abs=1e-5)
        assert event.spectrum is not None and event.spectrum_is_exact and sum(event.spectrum) == pytest.approx(1)
    plain = started(min_fidelity=0.0)
    event = window(plain, inside(0, 20, 60))
    assert event.best_fidelity is None and event.spectrum is not None and len(event.spectrum) == 8


def test_callers_in_any_gradient_mode_get_the_same_plain_tensors() -> None:
    def track(x: Tensor) -> SubspaceTracker:
        tracker = SubspaceTracker(D, LaserPolicy(rank=6, refresh="step", min_fidelity=0.9, growth=4))
        for _ in range(3):
            tracker.observe(x * 2)
        return tracker

    x = inside(0, 12, 61)
    expected = track(x).basis
    assert expected is not None
    graded = track(x.clone().requires_grad_()).basis
    with torch.no_grad():
        plain = track(x).basis
    with torch.inference_mode():
        inferred = track(x).basis
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = track(x).basis
    for basis in (graded, plain, inferred, cast):
        assert basis is not None and torch.equal(basis, expected)
        assert not basis.requires_grad and not basis.is_inference()
        weight = torch.ones(6, D, requires_grad=True)
        (weight @ basis).sum().backward()  # saved for backward: what an inference tensor would refuse


def test_the_callers_default_dtype_is_none_of_the_trackers_business() -> None:
    x = inside(0, 8, 76, rows=123)
    tracker, reference = started(), started()
    expected = window(reference, x)
    torch.set_default_dtype(torch.float64)
    try:
        ones.cache_clear()
        event = window(tracker, x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (event.action, event.fidelity, event.centred_fidelity) == ("keep", expected.fidelity, expected.centred_fidelity)
    assert torch.equal(tracker.basis, reference.basis)  # type: ignore[arg-type]


def test_the_rule_can_judge_a_functional_fidelity() -> None:
    x = inside(0, 30, 65)
    tracker = started(measure="functional", patience=2)
    tracker.observe(x)
    kept = tracker.refresh(0.95)
    assert (kept.action, kept.cause, kept.functional) == ("keep", "F ≥ ε", 0.95)
    assert kept.fidelity < 0.6  # the energy is not judged

    def judged(functional: float | None) -> tuple[str, int, str]:
        tracker.observe(x)
        event = tracker.refresh(functional)
        return event.action, event.rank, event.state

    assert judged(0.5) == ("grow", 12, "tracking")
    assert judged(float("nan")) == ("reset", 16, "resting")  # 12 + growth: what it will do is not known beforehand
    assert judged(7.0) == ("keep", 16, "resting")
    assert tracker.basis is not None
    tracker.observe(normal(50, 16, seed=66) @ tracker.basis.T)
    assert (tracker.refresh().action, tracker.state) == ("keep", "tracking")  # no value: energy
    assert judged(None)[0] == "grow"


def test_a_functional_reset_is_the_svd_basis_and_never_past_the_largest_rank() -> None:
    tracker = started(measure="functional", patience=1, max_rank=10)
    x = rows_in(FRAME[:, 20:44], torch.logspace(0, -1, 24), 200, 67)
    tracker.observe(x)
    event = tracker.refresh(0.1)
    assert (event.action, event.rank) == ("reset", 10)
    assert event.fidelity_after == pytest.approx(best_fidelity(x, 10), abs=1e-5)
    assert event.best_angles is not None and max(event.best_angles) < 0.1
    tracker.observe(x)
    event = tracker.refresh(0.1)  # misses on at the largest rank, with a basis that nothing can better
    assert (event.action, event.state, event.cause) == ("keep", "saturated", "saturated: best F 0.10 at rank 10")


def test_without_energy_nothing_is_released_under_a_functional_measure() -> None:
    tracker = started(measure="functional", patience=1, release=True, rank=2)
    tracker.set_policy(replace(tracker.policy, rank=2))
    for _ in range(3):
        tracker.observe(inside(0, 1, 68))
        assert tracker.refresh(1.0).rank == 2
    tracker.set_policy(replace(tracker.policy, min_fidelity=0.5))
    tracker.observe(inside(0, 20, 69))
    assert tracker.refresh(0.4).action == "reset"
    for _ in range(3):
        tracker.observe(inside(0, 1, 70))
        assert tracker.refresh(1.0).rank == 6


def test_angles_to_the_best_basis_of_a_window() -> None:
    tracker = started(min_fidelity=0.0)
    x = rows_in(FRAME, torch.logspace(0, -2, D), 200, 71)
    tracker.keep_windows = True
    without = window(tracker, x)  # the window was open already
    assert without.best_angles is None and without.best_fidelity is None
    event = window(tracker, x)
    assert event.best_angles is not None and event.new_basis is not None and len(event.best_angles) == 8
    best = torch.linalg.svd(x.double(), full_matrices=False)[2][:8].T
    cosine = float(torch.linalg.svdvals(best.T @ event.new_basis.double())[-1])
    assert event.best_angles[0] == pytest.approx(float(torch.rad2deg(torch.acos(torch.tensor(cosine)))), abs=0.1)
    assert list(event.best_angles) == sorted(event.best_angles, reverse=True)
    assert tracker.observe(x).best_angles is None


def jumping(seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Three observations in one 4-dimensional subspace of 24, then three in another, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(24, 8, generator=generator))[0]
    spans = frame[:, :4], torch.linalg.qr(frame[:, :4] + frame[:, 4:])[0]

    def rows(span: torch.Tensor) -> torch.Tensor:
        return torch.randn(50, 4, generator=generator) @ span.T + 0.01 * torch.randn(50, 24, generator=generator)

    return [rows(spans[0]) for _ in range(3)], [rows(spans[1]) for _ in range(3)]


def test_a_turn_within_a_window_follows_a_jump_and_the_window_tells_what_was_stored() -> None:
    before, after = jumping()
    tracker = SubspaceTracker(24, LaserPolicy(rank=4, min_fidelity=0.0))
    for x in before:
        tracker.observe(x)
    tracker.refresh()
    assert tracker.turn(tracker.observe(before[0])) is None  # nothing fell
    stored = [before[0] @ tracker.basis]  # type: ignore[operator]
    fallen = tracker.observe(after[0])
    stored.append(fallen.coefficients)  # type: ignore[arg-type]
    told = tracker.turn(fallen)
    assert told is not None and not told.closes and told.action == "keep" and told.rank == told.previous_rank == 4
    assert told.cause.startswith("turned early: F was 1.000") and told.fidelity == fallen.fidelity
    assert told.fidelity_after is None and told.angles is not None and told.angles[0] > 10
    basis = tracker.basis
    assert basis is not None and torch.allclose(basis.T @ basis, torch.eye(4), atol=1e-5)
    next_one = tracker.observe(after[1])
    stored.append(next_one.coefficients)  # type: ignore[arg-type]
    assert next_one.fidelity > fallen.fidelity + 0.1
    closing = tracker.refresh()
    everything = torch.cat((before[0], after[0], after[1]))
    assert closing.fidelity == pytest.approx(sum(float(z.square().sum()) for z in stored) / float(everything.square().sum()), rel=1e-5)


@pytest.mark.parametrize("changes", [{"turn": 1.0}, {"measure": "centred"}, {"refresh": "step"}])
def test_no_turn_where_none_is_wanted(changes: dict) -> None:
    before, after = jumping()
    tracker = SubspaceTracker(24, LaserPolicy(rank=4, min_fidelity=0.0, **changes))
    assert tracker.turn(tracker.observe(before[0])) is None  # no basis yet
    tracker.refresh()
    assert tracker.turn(tracker.observe(after[0])) is None


def test_a_turned_window_goes_on_from_a_snapshot_bit_for_bit() -> None:
    before, after = jumping()
    tracker, other = (SubspaceTracker(24, LaserPolicy(rank=4)) for _ in range(2))
    tracker.observe(before[0])
    tracker.refresh()
    tracker.turn(tracker.observe(after[0]))
    other.restore(tracker.snapshot())
    events = []
    for one in (tracker, other):
        one.observe(after[1])
        events.append(one.refresh())
    assert events[0].fidelity == events[1].fidelity and torch.equal(events[0].new_basis, events[1].new_basis)  # type: ignore[arg-type]


def test_a_window_held_as_its_gram_matrix_judges_and_resets_as_one_held_as_rows() -> None:
    policy = LaserPolicy(rank=4, max_rank=6, min_fidelity=0.98, patience=1)
    streams = [rows_in(rotation(24, seed)[:, :6], torch.tensor([9.0, 6, 4, 2, 1, 0.5]), 200, seed) for seed in (1, 1, 2, 2)]
    ends = []
    for hold in ("rows", "gram"):
        tracker = SubspaceTracker(24, policy, hold=hold)
        events = [window(tracker, x[:100], x[100:]) for x in streams]
        assert [event.action for event in events] == ["keep", "keep", "reset", "keep"]
        ends.append(events)
    for rows, gram in zip(*ends, strict=True):
        assert (rows.rank, rows.fidelity) == (gram.rank, pytest.approx(gram.fidelity, abs=1e-5))
        assert rows.fidelity_after == pytest.approx(gram.fidelity_after, abs=1e-5)
        assert rows.new_basis is not None and gram.new_basis is not None
        assert float(principal_angles(rows.new_basis, gram.new_basis).max()) < 0.2  # degrees


def test_many_expected_observations_draw_no_more_rows_than_one() -> None:
    tracker = SubspaceTracker(24, LaserPolicy(rank=4, growth=2, min_fidelity=0.01))
    x = normal(48, 24, seed=0)
    window(tracker, x)
    sizes = []
    for expected in (1, 4):
        tracker.expect(expected)
        window(tracker, x)
        for _ in range(4):
            tracker.observe(x)
        sizes.append(tracker.bookkeeping_bytes)
        tracker.refresh()
    sketch_and_sums = 4 * 24 * 4 + 4 * 24 * 4
    assert sizes == [sketch_and_sums + 4 * 8 * 24 * 4, sketch_and_sums + 4 * 2 * 24 * 4]
