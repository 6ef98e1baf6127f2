"""`watch` on modules of one's own: what counts as a step, figures against plain torch, and a module that notices nothing."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import laser_studio
from laser_studio.debugger import Watcher, watch
from laser_studio.errors import LaserStudioError, PolicyError, RecordingError
from laser_studio.laser import LaserPolicy
from laser_studio.laser.ledger import LedgerLine
from tests.laser.helpers import traces

FIXED = LaserPolicy(rank="25%", min_fidelity=0)  # never a miss: the basis only turns
RECURRENT = ["block.up", "block.down"]


class Block(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(torch.relu(self.up(x))))


class Loop(nn.Module):
    """(B, T, 8) to (B, T, 5) through `times` applications of one block."""

    def __init__(self, times: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.block, self.head, self.times = nn.Linear(8, 16), Block(), nn.Linear(16, 5), times
        self.failing: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for step in range(self.times):
            if step == 2 and self.failing is not None:
                raise self.failing
            x = self.block(x)
        return self.head(x)


def data(index: int = 0) -> Tensor:
    return torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(index))


def addresses(watcher: Watcher) -> list[tuple[int, int, int | str]]:
    return [(frame.s, frame.h, frame.l) for frame in watcher.frames]


# What a step is


def test_an_application_of_the_repeated_part_is_a_step() -> None:
    model = Loop()
    with watch(model) as watcher:
        for index in range(2):
            model(data(index))
    assert addresses(watcher) == [(0, 0, 0), *((s, 1, step) for s in (1, 2) for step in (1, 2, 3, 4))]
    assert [list(frame.sites) for frame in watcher.frames] == [
        [],
        *2 * [["embed", *RECURRENT], RECURRENT, RECURRENT, [*RECURRENT, "head"]],
    ]
    assert [frame.index for frame in watcher.frames if frame.ends_supervision] == [4, 8]
    assert [frame.index for frame in watcher.frames if frame.sites and frame.sites["block.up"].window_fidelity is not None] == [4, 8]
    assert {frame.batch for frame in watcher.frames[1:]} == {3}
    assert watcher.frames[5].solved is None and watcher.frames[5].answer == ()


def test_a_block_in_a_loop_of_ones_own_gives_a_step_a_call() -> None:
    block = Block()
    x = torch.randn(5, 16)
    with watch(block, policy=LaserPolicy(rank=4, refresh="supervision"), every=3) as watcher:
        for _ in range(7):
            x = block(x)
    assert addresses(watcher)[1:] == [(call, 1, 1) for call in range(1, 8)]
    assert [frame.index for frame in watcher.frames[1:] if frame.sites["up"].window_fidelity is not None] == [3, 6]


def test_windows_can_be_closed_by_hand() -> None:
    block = Block()
    x = torch.randn(5, 16)
    with watch(block, policy=LaserPolicy(rank=4, refresh="supervision"), every=None) as watcher:
        for call in range(1, 9):
            x = block(x)
            if call in (2, 5):
                watcher.close_window()
    # The step before each closing has been told already: the next one tells it.
    told = {frame.index: frame.sites["up"].angles for frame in watcher.frames[1:] if frame.sites["up"].window_fidelity is not None}
    assert list(told) == [3, 6]
    assert told[3] is None and told[6] is not None  # the first window starts the basis
    assert [event.kind for event in watcher.frames[3].events] == ["started", "started"]


def test_a_window_can_be_closed_inside_a_forward() -> None:
    class Cycles(Loop):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for step in range(self.times):
                x = self.block(x)
                if step == 1:
                    watcher.close_window()
            return self.head(x)

    model = Cycles()
    with watch(model, policy=FIXED) as watcher:
        model(data())
    assert addresses(watcher)[1:] == [(1, 1, 1), (1, 1, 2), (1, 2, 3), (1, 2, 4)]
    assert [frame.sites["block.up"].rank for frame in watcher.frames[1:]] == [0, 4, 4, 4]


@pytest.mark.parametrize("refresh", ["step", "cycle"])
def test_what_happens_to_a_site_seen_once_a_forward_is_told(refresh: Any) -> None:
    model = Loop()
    with watch(model, policy=LaserPolicy(rank=2, min_fidelity=1.0, patience=2, growth=2, refresh=refresh)) as watcher:
        for index in range(4):
            model(data(index))
    own = [event for frame in watcher.frames for event in frame.events if event.site == "embed"]
    assert [event.kind for event in own] == ["started", "grew", "reset"]
    assert all(frame.sites["embed"].window_fidelity is not None for frame in watcher.frames[5::4])
    assert watcher.frames[-1].resets == sum(event.kind == "reset" for frame in watcher.frames for event in frame.events)


def test_sites_switched_off_make_no_steps() -> None:
    model = Loop()
    with watch(model, policy=LaserPolicy(rank=2, sites={"block.*": {"enabled": False}})) as watcher:
        model(data())
    assert [list(frame.sites) for frame in watcher.frames] == [[], ["embed", "head"]]


@pytest.mark.parametrize("error", [ValueError("bad batch"), KeyboardInterrupt()])
def test_a_forward_that_fails_ends_its_step_and_the_next_is_whole(error: BaseException) -> None:
    model = Loop()
    with watch(model) as watcher:
        model(data())
        model.failing = error
        with pytest.raises(type(error)):
            model(data())
        model.failing = None
        model(data())
    assert addresses(watcher)[-6:] == [(2, 1, 1), (2, 1, 2), (3, 1, 1), (3, 1, 2), (3, 1, 3), (3, 1, 4)]
    assert watcher.frames[-1].ends_supervision


def test_a_module_that_calls_itself_is_in_one_forward() -> None:
    class Recursive(Block):
        def forward(self, x: Tensor, depth: int = 3) -> Tensor:
            x = super().forward(x)
            return self(x, depth=depth - 1) if depth > 1 else x

    model = Recursive()
    with watch(model) as watcher:
        model(torch.randn(5, 16))
    assert addresses(watcher)[1:] == [(1, 1, 1), (1, 1, 2), (1, 1, 3)]
    assert [frame.ends_supervision for frame in watcher.frames[1:]] == [False, False, True]


# Figures


class Inputs:
    """Records each site's inputs, call by call, as plain torch sees them."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: dict[str, list[Tensor]] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_pre_hook(lambda _, args, name=name: self.seen.setdefault(name, []).append(args[0].detach().double()))


def kept(x: Tensor, basis: Tensor) -> float:
    rows = x.reshape(-1, x.shape[-1])
    return float((rows @ basis).square().sum() / rows.square().sum())


def test_fidelities_are_those_of_plain_linear_algebra() -> None:
    """The first basis is an SVD of the first forward, each later one orth(Σ XᵀXQ) of the forward before; all in fp64 here."""
    model = Loop()
    inputs = Inputs(model)
    with watch(model, policy=FIXED) as watcher:
        for index in range(5):
            model(data(index))
    checked = 0
    for site in RECURRENT:
        forwards = [inputs.seen[site][4 * index : 4 * index + 4] for index in range(5)]
        rows = torch.cat(forwards[0]).flatten(0, -2)
        basis = torch.linalg.svd(rows, full_matrices=False).Vh[: rows.shape[1] // 4].T
        for number, xs in enumerate(forwards[1:], 1):
            for step, x in enumerate(xs):
                shown = watcher.frames[1 + 4 * number + step].sites[site]
                assert shown.fidelity == pytest.approx(kept(x, basis), abs=2e-5)
                centred = x.flatten(0, -2) - x.flatten(0, -2).mean(0)
                assert shown.centred == pytest.approx(kept(centred, basis), abs=5e-5)
                checked += 1
            rows = torch.cat(xs).flatten(0, -2)
            window = watcher.frames[4 + 4 * number].sites[site].window_fidelity
            assert window == pytest.approx(kept(rows, basis), abs=2e-5)
            basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    assert checked == 32


def test_residual_is_how_far_the_blocks_input_moves() -> None:
    model = Loop()
    inputs = Inputs(model)
    with watch(model) as watcher:
        for index in range(3):
            model(data(index))
    seen = inputs.seen["block.up"]
    moved = [float((now - before).norm()) for before, now in pairwise(seen)]
    # Which part repeats is known from the second step on.
    assert [frame.residual for frame in watcher.frames[3:]] == pytest.approx(moved[1:], rel=1e-5)
    with watch(model) as watcher:
        model(data()[:2])
        model(data())
    assert watcher.frames[5].residual == 0 and watcher.frames[6].residual > 0  # shapes differ


def test_activations_are_read_back() -> None:
    model = Loop()
    inputs = Inputs(model)
    # The last window stays open: what it stored has not been carried over to another basis.
    with watch(model, policy=LaserPolicy(rank="25%", min_fidelity=0, refresh="supervision"), every=2) as watcher:
        for index in range(3):
            model(data(index))
    exact = watcher.activations(2, "block.down")
    thin = watcher.activations(12, "block.down")
    assert exact is not None and thin is not None
    assert torch.equal(exact[0].double(), inputs.seen["block.down"][1].flatten(0, -2)) and exact[1] == 1
    x = inputs.seen["block.down"][11].flatten(0, -2)
    lost = float((thin[0].double() - x).square().sum() / x.square().sum())
    assert thin[1] == pytest.approx(1 - lost, abs=1e-5) and thin[1] < 1
    assert watcher.activations(99, "block.down") is None and watcher.activations(1, "head") is None


def test_ledgers_count_what_is_there() -> None:
    model = Loop()
    with watch(model, policy=FIXED) as watcher:
        for index in range(3):
            model(data(index))
    ledger, frame = watcher.ledger(), watcher.frame
    assert ledger.total == frame.history and ledger.sites["head"] == frame.sites["head"].history
    assert ledger.total.full_bytes == 3 * 18 * 4 * (8 + 4 * (16 + 32) + 16)
    assert frame.training_all == LedgerLine(0, 0, 0)
    # 4 applications of 18 rows in fp32 at rank 4 of 16, and the basis.
    assert frame.sites["block.up"].training == LedgerLine(4 * 18 * 4 * 16, 4 * 18 * 4 * 4, 16 * 4 * 4)
    assert frame.sites["head"].training == LedgerLine(18 * 4 * 16, 18 * 4 * 4, 16 * 4 * 4)
    shares = watcher.spectra("block.up", 0, 20)
    assert shares[:5] == [None] * 5 and len(shares) == 13 and all(len(row or ()) == 4 for row in shares[5:])
    assert sum(shares[9] or ()) == pytest.approx(watcher.frames[9].sites["block.up"].fidelity, rel=5e-3)
    assert watcher.spectra("head", 7, 9) == [None, watcher.spectra("head", 8, 9)[0]]


def test_a_full_history_is_told_once_and_drops_the_oldest_steps() -> None:
    model = Loop()
    with watch(model, policy=FIXED, history_bytes=20_000) as watcher:
        for index in range(12):
            model(data(index))
    told = [event.text for frame in watcher.frames for event in frame.events if event.kind == "budget" and "dropped" in event.text]
    assert len(told) == 1
    assert watcher.activations(2, "block.up") is None and watcher.activations(48, "block.up") is not None
    total = watcher.ledger().total
    assert total.stored_bytes + total.basis_bytes <= 20_000


def test_notes_are_kept_by_step() -> None:
    model = Loop(times=2)
    with watch(model) as watcher:
        watcher.note("rate", 0.5)
        for value in (torch.tensor(2.0, requires_grad=True), float("nan")):
            model(data())
            watcher.note("loss", value)
        with pytest.raises(LaserStudioError, match="name"):
            watcher.note("", 1.0)
    assert watcher.notes == {"rate": [(0, 0.5)], "loss": [(2, 2.0), (4, None)]}


def test_activations_that_are_not_finite_are_reported_and_watching_goes_on() -> None:
    model = Loop()
    with watch(model) as watcher:
        model(data())
        model(data() * float("nan"))
        model(data())
    assert [frame.finite for frame in watcher.frames[1:]] == 4 * [True] + 4 * [False] + [True] * 4
    assert watcher.frames[5].events[-1].kind == "not finite" and watcher.frames[5].residual == 0


# A module that notices nothing


def trained(watched: bool, **settings: Any) -> tuple[list[Tensor], Tensor]:
    model = Loop()
    model.append = nn.Dropout(0.1)  # takes from the global random state
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = watch(model, **settings) if watched else None
    outputs = []
    for index in range(5):
        output = model(data(index) + torch.randn(3, 6, 8))
        optimizer.zero_grad()
        output.square().mean().backward()
        outputs += [output.detach(), *(weight.grad.clone() for weight in model.parameters() if weight.grad is not None)]
        optimizer.step()
    if watcher is not None:
        assert len(watcher.frames) == 21
        watcher.close()
    return [*outputs, *(weight.detach() for weight in model.parameters())], torch.get_rng_state()


@pytest.mark.parametrize("refresh", ["step", "cycle", "supervision"])
def test_outputs_gradients_weights_and_randomness_stay_as_they_are(refresh: Any, tmp_path: Path) -> None:
    plain, plain_state = trained(False)
    seen, state = trained(True, policy=LaserPolicy(rank=2, refresh=refresh, min_fidelity=0.99), path=tmp_path / "run.jsonl", every=2)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True)) and len(plain) == len(seen)
    assert torch.equal(plain_state, state)


@pytest.mark.parametrize("mode", ["autocast", "no_grad", "inference_mode"])
def test_the_callers_mode_is_left_alone_and_does_not_reach_the_trackers(mode: str) -> None:
    contexts: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
    }

    def run(watched: bool) -> tuple[list[Tensor], Watcher | None]:
        model = Loop()
        watcher = watch(model, policy=FIXED) if watched else None
        with contexts[mode]():
            outputs = [model(data(index)) for index in range(4)]
        if watcher is not None:
            watcher.close()
        return outputs, watcher

    plain, _ = run(False)
    seen, watcher = run(True)
    assert watcher is not None and len(watcher.frames) == 17
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(plain, seen, strict=True))
    x = watcher.activations(16, "block.down")
    assert x is not None and x[0].dtype == torch.float32 and not x[0].is_inference()
    assert 0.2 < watcher.frame.sites["block.down"].fidelity < 1
    # Under autocast the down projection reads bf16, and bf16 is what it is counted as.
    rows, size = 16 * 18, 2 if mode == "autocast" else 4
    assert watcher.ledger().sites["block.down"].full_bytes == rows * 32 * size


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_repeats_in_the_backward_pass_is_no_step(reentrant: bool) -> None:
    block = Block()
    x = torch.randn(5, 16, requires_grad=True)
    with watch(block) as watcher:
        y = x
        for _ in range(3):
            y = checkpoint(block, y, use_reentrant=reentrant)
        y.square().sum().backward()
        block(x)
    assert addresses(watcher)[1:] == [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]


def test_copies_and_parts_called_from_outside_are_not_seen() -> None:
    model = Loop()
    with watch(model) as watcher:
        copy.deepcopy(model)(data())
        model.block(torch.randn(5, 16))
        model(data())
    assert len(watcher.frames) == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_module_compiled_while_it_is_watched_still_shows_everything() -> None:
    model = Loop()
    plain = model(data())
    with watch(model, policy=FIXED) as watcher:
        compiled: Any = torch.compile(model, backend="eager")
        assert torch.equal(compiled(data()), plain) and torch.equal(compiled(data()), plain)
    assert addresses(watcher)[-4:] == [(2, 1, 1), (2, 1, 2), (2, 1, 3), (2, 1, 4)]
    with pytest.raises(LaserStudioError, match="the module is compiled"):
        watch(compiled)


def test_compiled_and_scripted_modules_are_refused() -> None:
    model = Loop()
    model.block.compile()
    with pytest.raises(LaserStudioError, match=r"the part 'block' of the module is compiled.*before it is compiled"):
        watch(model)


def test_wrong_arguments_are_refused_with_their_cause(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no linear layers"):
        watch(nn.Sequential(nn.ReLU()))
    with pytest.raises(PolicyError, match="no site is called"):
        watch(Loop(), policy=LaserPolicy(sites={"nope": {"rank": 2}}))
    for every in (0, True, 1.5):
        with pytest.raises(LaserStudioError, match="every"):
            watch(Loop(), every=every)  # type: ignore[arg-type]
    model = Loop()
    with pytest.raises(RecordingError):
        watch(model, tmp_path)
    assert traces(model) == 0
    with watch(model) as watcher, pytest.raises(LaserStudioError, match="complex"):
        model(data().to(torch.complex64))
    assert len(watcher.frames) == 1


# Coming and going


def test_hooks_and_patches_are_there_while_watching_only() -> None:
    model = Loop()
    watcher = watch(model)
    assert (traces(model), watcher.attached) == (6, True)
    watcher.attach()
    assert traces(model) == 6
    model(data())
    watcher.detach()
    assert (traces(model), watcher.attached) == (0, False)
    model(data())
    watcher.attach()
    model(data())
    watcher.close()
    assert traces(model) == 0 and len(watcher.frames) == 9
    with pytest.raises(LaserStudioError, match="watching has ended"):
        watcher.attach()


def test_two_watchers_do_not_disturb_one_another() -> None:
    model = Loop()
    with watch(model, policy=FIXED) as one, watch(model, policy=LaserPolicy(rank=8, min_fidelity=0)) as two:
        for index in range(2):
            model(data(index))
    assert [frame.sites["block.up"].rank for frame in (one.frame, two.frame)] == [4, 8]


def test_a_watcher_nobody_keeps_goes_on_and_goes_with_its_module() -> None:
    model = Loop()
    watcher = weakref.ref(watch(model))
    gc.collect()
    model(data())
    held = watcher()
    assert held is not None and len(held.frames) == 5
    del held, model
    gc.collect()
    assert watcher() is None


def test_nothing_seen_is_said() -> None:
    with pytest.warns(RuntimeWarning, match="nothing was seen"), watch(Loop()):
        pass


def test_the_package_brings_no_torch_until_it_is_needed(repository: Path) -> None:
    program = "import sys, laser_studio; assert 'torch' not in sys.modules; laser_studio.watch; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=repository, check=True, timeout=120)
    assert laser_studio.watch is watch
    with pytest.raises(AttributeError, match="nonsense"):
        laser_studio.nonsense  # noqa: B018
