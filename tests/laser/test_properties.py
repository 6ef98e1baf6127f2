"""What must hold for any stream and any policy."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from laser_studio.laser import LaserPolicy, SubspaceTracker, TrackerEvent
from tests.laser.helpers import best_fidelity, orthonormality_error

policies = st.builds(
    LaserPolicy,
    rank=st.one_of(st.integers(1, 20), st.sampled_from(["10%", "50%", "100%"])),
    min_fidelity=st.floats(0, 1),
    patience=st.integers(1, 4),
    growth=st.integers(1, 10),
    refresh=st.sampled_from(["step", "cycle"]),
    measure=st.sampled_from(["energy", "centred"]),
    release=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Tensor]:
    """2 to 9 windows of one width: anything from noise to rank one, with jumps, scales and dead stretches between them."""
    dim = draw(st.integers(1, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    stream = []
    for _ in range(draw(st.integers(2, 9))):
        rows, inner = draw(st.integers(1, 30)), draw(st.integers(0, dim))
        scale = 10.0 ** draw(st.integers(-6, 6))
        mean = draw(st.sampled_from([0.0, 1.0, 100.0]))
        x = torch.randn(rows, inner, generator=generator) @ torch.randn(inner, dim, generator=generator)
        stream.append(scale * (x + mean * torch.randn(dim, generator=generator)))
    return stream


def follow(tracker: SubspaceTracker, stream: list[Tensor]) -> list[TrackerEvent]:
    """Closing events, one per window."""
    events = []
    for x in stream:
        event = tracker.observe(x)
        events.append(event if event.closes else tracker.refresh())
    return events


@settings(max_examples=120)
@given(policies, streams())
def test_invariants(policy: LaserPolicy, stream: list[Tensor]) -> None:
    dim = stream[0].shape[1]
    tracker = SubspaceTracker(dim, policy, keep_windows=True)
    for number, (x, event) in enumerate(zip(stream, follow(tracker, stream), strict=True)):
        basis = event.new_basis
        assert basis is not None and basis.shape == (dim, event.rank)
        assert orthonormality_error(basis) < 1e-5
        assert 1 <= event.rank <= policy.max_rank_for(dim)
        assert 0 <= event.fidelity <= 1 and 0 <= event.centred_fidelity <= 1
        assert event.fidelity_after is not None and 0 <= event.fidelity_after <= 1
        assert event.best_fidelity is not None or not x.any()
        if number and x.any():
            assert event.fidelity <= best_fidelity(x, event.previous_rank) + 1e-5
        assert event.action == "reset" or event.rank >= event.previous_rank or policy.release
        assert all(0 <= angle <= 90 + 1e-9 for angle in event.angles or ())
        once = tracker.decode(tracker.encode(x))
        twice = tracker.decode(tracker.encode(once))
        assert (twice - once).norm() <= 1e-5 * x.norm()


@settings(max_examples=40)
@given(policies, streams())
def test_the_same_stream_gives_the_same_bases_and_leaves_global_randomness_alone(policy: LaserPolicy, stream: list[Tensor]) -> None:
    state = torch.get_rng_state()
    bases = []
    for _ in range(2):
        tracker = SubspaceTracker(stream[0].shape[1], policy, name="a")
        follow(tracker, stream)
        bases.append(tracker.basis)
    assert torch.equal(*bases)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=40)
@given(policies, streams(), st.data())
def test_a_restored_tracker_goes_on_bit_for_bit(policy: LaserPolicy, stream: list[Tensor], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(stream) - 1))
    tracker = SubspaceTracker(stream[0].shape[1], policy)
    follow(tracker, stream[:cut])
    if policy.refresh == "cycle":
        tracker.observe(stream[cut])  # in the middle of a window
    snapshot = tracker.snapshot()
    first = [(e.action, e.rank, e.cause, e.fidelity) for e in follow(tracker, stream[cut:])]
    basis = tracker.basis
    for again in (tracker, SubspaceTracker(stream[0].shape[1], LaserPolicy())):
        again.restore(snapshot)
        assert [(e.action, e.rank, e.cause, e.fidelity) for e in follow(again, stream[cut:])] == first
        assert torch.equal(again.basis, basis)  # type: ignore[arg-type]


def test_seeds_and_names_draw_different_rows() -> None:
    x = torch.randn(200, 20, generator=torch.Generator().manual_seed(0))

    def grown(seed: int, name: str) -> Tensor:
        tracker = SubspaceTracker(20, LaserPolicy(rank=2, growth=2, patience=9, seed=seed), name=name)
        follow(tracker, [x, x])
        assert tracker.basis is not None
        return tracker.basis

    assert torch.equal(grown(0, "a"), grown(0, "a"))
    assert not torch.equal(grown(0, "a"), grown(1, "a"))
    assert not torch.equal(grown(0, "a"), grown(0, "b"))
