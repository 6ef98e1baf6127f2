"""The rule, transition by transition, without tensors."""

from __future__ import annotations

import pytest

from laser_studio.laser import LaserPolicy
from laser_studio.laser.rule import SATURATED_DRIFT, Standing, after_reset, judge, release, saturate

POLICY = LaserPolicy(rank=8, min_fidelity=0.9, patience=3, growth=4)


FULL = 16  # the largest rank in the table
RESTING, SATURATED = Standing(rest=3), Standing(saturated=True)
SETTLED = Standing(saturated=True, settled_at=0.5)


@pytest.mark.parametrize(
    ("before", "fidelity", "rank", "held", "action", "after"),
    [
        # tracking
        (Standing(), 0.95, 8, False, "keep", Standing()),
        (Standing(misses=2), 0.95, 8, True, "keep", Standing()),
        (Standing(), 0.5, 8, False, "grow", Standing(misses=1)),
        (Standing(misses=1), 0.5, 8, False, "grow", Standing(misses=2)),
        (Standing(), 0.5, FULL, False, "keep", Standing(misses=1)),
        (Standing(misses=2), 0.5, 8, True, "reset", Standing()),
        (Standing(misses=2), 0.5, FULL, True, "reset", Standing()),
        (Standing(misses=2), 0.5, 8, False, "grow", Standing(misses=3)),
        (Standing(misses=2), 0.5, FULL, False, "keep", Standing(misses=3)),
        (Standing(spare=2, spare_need=5), 0.5, 8, False, "grow", Standing(misses=1)),
        (Standing(spare=2, spare_need=5), 0.95, 8, False, "keep", Standing(spare=2, spare_need=5)),
        # resting (the cooldown after a reset)
        (RESTING, 0.95, 8, True, "keep", Standing(rest=2)),
        (RESTING, 0.5, 8, True, "grow", Standing(rest=2, misses=1)),
        (RESTING, 0.5, FULL, True, "keep", Standing(rest=2, misses=1)),
        (Standing(rest=2, misses=5), 0.5, 8, True, "grow", Standing(rest=1, misses=6)),
        (Standing(rest=2, misses=5), 0.5, FULL, True, "keep", Standing(rest=1, misses=6)),
        (Standing(rest=1), 0.95, 8, False, "keep", Standing()),
        (Standing(rest=1, misses=2), 0.5, 8, True, "grow", Standing(misses=3)),
        # saturated
        (SATURATED, 0.5, FULL, True, "keep", SETTLED),
        (SETTLED, 0.51, FULL, True, "keep", SETTLED),
        (SETTLED, 0.49, 8, True, "keep", SETTLED),
        (SETTLED, 0.6, 8, False, "grow", Standing(misses=1)),
        (SETTLED, 0.4, FULL, False, "keep", Standing(misses=1)),
        (SETTLED, 0.95, FULL, False, "keep", Standing()),
        (SATURATED, 0.95, FULL, False, "keep", Standing()),
    ],
)
def test_every_transition(before: Standing, fidelity: float, rank: int, held: bool, action: str, after: Standing) -> None:
    verdict = judge(before, POLICY, fidelity=fidelity, rank=rank, max_rank=FULL, held=held)
    assert (verdict.action, verdict.standing) == (action, after)
    assert verdict.exhausted == (before.rest > 0 and after.misses >= POLICY.patience and rank == FULL)
    assert (verdict.cause == "") == (action == "reset")  # a reset's cause is its outcome


@pytest.mark.parametrize(
    ("before", "reached", "after", "state"),
    [
        (Standing(), True, Standing(rest=3), "resting"),
        (Standing(), False, SATURATED, "saturated"),
        (Standing(spare=1, spare_need=4), True, Standing(rest=3, spare=1, spare_need=4), "resting"),
    ],
)
def test_every_outcome_of_a_reset(before: Standing, reached: bool, after: Standing, state: str) -> None:
    verdict = after_reset(before, POLICY, reached=reached, best=0.8, rank=8)
    assert (verdict.action, verdict.standing, verdict.standing.state) == ("reset", after, state)


@pytest.mark.parametrize("before", [Standing(misses=2), RESTING, SATURATED, SETTLED])
def test_a_change_of_settings_starts_over(before: Standing) -> None:
    assert before.refreshed() == Standing()


def test_one_miss_wakes_and_resets_where_patience_is_one() -> None:
    impatient = LaserPolicy(rank=8, min_fidelity=0.9, patience=1)
    verdict = judge(SETTLED, impatient, fidelity=0.3, rank=8, max_rank=FULL, held=True)
    assert (verdict.action, verdict.standing) == ("reset", Standing())


def test_a_hit_keeps_and_ends_a_row_of_misses() -> None:
    verdict = judge(Standing(misses=2), POLICY, fidelity=0.9, rank=8, max_rank=16, held=False)
    assert (verdict.action, verdict.cause, verdict.standing) == ("keep", "F ≥ ε", Standing())


def test_a_complete_basis_meets_fidelity_one_despite_rounding() -> None:
    assert judge(Standing(), LaserPolicy(min_fidelity=1), fidelity=1 - 3e-7, rank=8, max_rank=8, held=False).cause == "F ≥ ε"


@pytest.mark.parametrize(("rank", "added"), [(8, 4), (14, 2)])
def test_a_miss_grows_never_past_the_largest_rank(rank: int, added: int) -> None:
    verdict = judge(Standing(), POLICY, fidelity=0.89, rank=rank, max_rank=16, held=False)
    assert (verdict.action, verdict.cause) == ("grow", f"miss 1 of 3: grew by {added}")
    assert verdict.standing == Standing(misses=1)


def test_a_miss_at_the_largest_rank_only_counts() -> None:
    verdict = judge(Standing(), POLICY, fidelity=0.1, rank=16, max_rank=16, held=False)
    assert (verdict.action, verdict.cause) == ("keep", "miss 1 of 3: rank 16 is the largest allowed")
    assert verdict.standing.misses == 1
    assert not verdict.exhausted


def test_the_last_miss_of_a_row_resets_and_then_rests_for_patience_windows() -> None:
    assert [Standing(misses=m).may_reset(POLICY) for m in range(3)] == [False, False, True]
    verdict = judge(Standing(misses=2), POLICY, fidelity=0.1, rank=8, max_rank=16, held=True)
    assert verdict.action == "reset"
    done = after_reset(verdict.standing, POLICY, reached=True, best=0.95, rank=6)
    assert (done.cause, done.standing) == ("reset by SVD after 3 misses", Standing(rest=3))
    assert done.standing.state == "resting"

    standing = done.standing
    for misses in (1, 2, 3):  # all of the rest is missed: it may grow, not reset
        assert not standing.may_reset(POLICY)
        verdict = judge(standing, POLICY, fidelity=0.1, rank=8, max_rank=16, held=True)
        assert (verdict.action, verdict.standing.misses) == ("grow", misses)
        assert "resting after a reset" in verdict.cause
        standing = verdict.standing
    assert standing.may_reset(POLICY)
    assert judge(standing, POLICY, fidelity=0.1, rank=8, max_rank=16, held=True).action == "reset"


def test_rest_ends_by_itself() -> None:
    standing, causes = Standing(rest=3), []
    for _ in range(4):
        verdict = judge(standing, POLICY, fidelity=0.95, rank=8, max_rank=16, held=False)
        causes.append(verdict.cause)
        standing = verdict.standing
    assert causes == ["resting after a reset"] * 3 + ["F ≥ ε"]
    assert standing.state == "tracking"


def test_without_the_windows_activations_a_reset_waits() -> None:
    verdict = judge(Standing(misses=2), POLICY, fidelity=0.1, rank=8, max_rank=16, held=False)
    assert verdict.action == "grow"
    assert verdict.standing.may_reset(POLICY)
    full = judge(Standing(misses=2), POLICY, fidelity=0.1, rank=16, max_rank=16, held=False)
    assert (full.action, full.exhausted) == ("keep", False)  # the reset that comes next may still find a better basis


def test_out_of_reach_at_a_reset_saturates_and_then_does_nothing_until_f_moves() -> None:
    verdict = after_reset(Standing(), POLICY, reached=False, best=0.8312, rank=16)
    assert (verdict.action, verdict.cause, verdict.standing.state) == ("reset", "saturated: best F 0.83 at rank 16", "saturated")

    standing = verdict.standing
    for fidelity in (0.80, 0.80 + SATURATED_DRIFT - 1e-9, 0.80 - SATURATED_DRIFT + 1e-9):  # the first one is what it settles at
        assert not standing.may_reset(LaserPolicy(patience=1))
        verdict = judge(standing, POLICY, fidelity=fidelity, rank=16, max_rank=20, held=True)
        assert (verdict.action, verdict.standing.settled_at, verdict.standing.misses) == ("keep", 0.80, 0)
        standing = verdict.standing

    woken = judge(standing, POLICY, fidelity=0.77, rank=16, max_rank=20, held=False)
    assert (woken.action, woken.standing) == ("grow", Standing(misses=1))
    saved = judge(standing, POLICY, fidelity=0.91, rank=16, max_rank=20, held=False)
    assert (saved.action, saved.cause, saved.standing) == ("keep", "F ≥ ε", Standing())


def test_exhausted_while_resting_at_the_largest_rank() -> None:
    verdict = judge(Standing(misses=2, rest=1), POLICY, fidelity=0.5, rank=16, max_rank=16, held=False)
    assert verdict.exhausted
    assert saturate(verdict.standing, best=0.52, rank=16, action="keep").standing == Standing(saturated=True)


def test_release_waits_for_patience_and_keeps_what_any_window_needed() -> None:
    policy = LaserPolicy(rank=4, patience=3, release=True)
    standing = Standing()
    ranks = []
    for needed in (6, 10, 5):
        standing, rank = release(standing, policy, needed=needed, rank=20, least=4)
        ranks.append(rank)
    assert ranks == [20, 20, 10]
    assert standing == Standing()


def test_release_stops_at_the_start_rank_and_starts_over_when_all_is_needed() -> None:
    policy = LaserPolicy(rank=4, patience=2, release=True)
    standing, _ = release(Standing(), policy, needed=2, rank=20, least=4)
    assert release(standing, policy, needed=2, rank=20, least=4)[1] == 4
    assert release(standing, policy, needed=20, rank=20, least=4) == (Standing(), 20)
    assert release(Standing(spare=1), policy, needed=2, rank=4, least=4) == (Standing(), 4)
    assert release(Standing(), LaserPolicy(rank=4, patience=1), needed=2, rank=20, least=4)[1] == 20
