"""What the page shows is what the engine computed: the same model, puzzle and policy in this process give the same figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from laser_studio.assets import asset_path
from laser_studio.debugger import Frame, Session
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import load_puzzles
from laser_studio.trm import load_checkpoint, save_checkpoint
from tests.browser.studio_page import StudioPage

LENGTH = 120
STEPS = (1, 5, 10, 33, 75, 120)
# Sums may be taken in another order by another number of threads: the last digit shown may differ by one.
DIGIT = 1.5


def shipped() -> Path:
    return asset_path("checkpoints", "sudoku-6x6")


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with noise on its weights."""
    model = load_checkpoint(shipped(), device="cpu")
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.3 * float(weight.std(correction=0)))
    folder = tmp_path_factory.mktemp("models") / "disturbed"
    save_checkpoint(model, folder)
    return folder


@pytest.fixture(scope="module")
def both(start_studio: Callable[..., str], disturbed: Path) -> str:
    """A studio that offers the demo and the disturbed one."""
    return start_studio("--checkpoint", str(disturbed))


def computed(folder: Path, puzzle_name: str, policy: LaserPolicy) -> Session:
    puzzle = next(puzzle for puzzle in load_puzzles("sudoku-6x6") if puzzle.name == puzzle_name)
    return Session(load_checkpoint(folder, device="cpu"), puzzle, policy=policy)


def number(text: str) -> float:
    return float(text.replace("%", "").replace("+", "").replace("°", "").strip())


def close(text: str, value: float, unit: float) -> bool:
    return math.isclose(number(text), value, abs_tol=DIGIT * unit)


def compare(studio: StudioPage, frame: Frame) -> None:
    """Every figure the page shows of a step, against the frame."""
    assert studio.step == frame.index
    assert math.isclose(float(studio.status("saving")), frame.history.saving, abs_tol=2e-4)
    assert close(studio.text("tile-saving"), 100 * frame.history.saving, 0.1)
    assert frame.mean_fidelity is not None and close(studio.text("tile-fidelity"), frame.mean_fidelity, 1e-4)
    assert studio.status("resets") == studio.text("tile-resets") == str(frame.resets)
    assert studio.status("solved") == str(frame.solved).lower()
    answered = (frame.s, frame.h) > (1, 1) or frame.l == "H"
    if answered:
        assert f"{frame.right} of {frame.total} right" in studio.text("board-right")
        assert close(studio.text("board-halt").split()[1], frame.q_halt, 0.01)
        assert studio.marked("wrong") == [cell for cell in frame.wrong or () if frame.answer[cell] > 0]
    assert studio.marked("changed") == list(frame.changed)
    for name, site in frame.sites.items():
        _, fidelity, rank = studio.site(name)
        if site.rank:
            assert close(fidelity, site.fidelity, 1e-4) and rank == f"k {site.rank}"
        else:
            assert fidelity == "exact"
    shown = list(studio.memory().values())
    assert all(close(text, 100 * site.history.saving, 1) for text, site in zip(shown, frame.sites.values(), strict=True))


def visit(studio: StudioPage, session: Session) -> None:
    """Go to several steps and compare each with the session at the same step."""
    given = session.puzzle.cells
    for step in STEPS:
        studio.seek(step / LENGTH)
        studio.at(step)
        frame = session.seek(step)
        compare(studio, frame)
        if step >= 5:
            assert studio.cells() == [
                str(fixed or answer) if fixed or answer > 0 else "" for fixed, answer in zip(given, frame.answer, strict=True)
            ]


def test_the_page_shows_what_the_engine_computes(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?puzzle=hard-0003&rank=20%25&min_fidelity=0.99&patience=2")
    policy = LaserPolicy(rank="20%", min_fidelity=0.99, patience=2)
    visit(studio, computed(shipped(), "hard-0003", policy))


def test_other_weights_give_other_numbers_and_they_are_true_as_well(open_page: Callable[..., Page], both: str, disturbed: Path) -> None:
    query = "puzzle=medium-0002&step=40"
    figures = []
    for model in ("sudoku-6x6", "disturbed"):
        studio = StudioPage.opened(open_page, both, f"?model={model}&{query}")
        studio.at(40)
        figures.append((studio.text("tile-fidelity"), studio.text("board-halt"), [studio.site(name)[1] for name in SITES]))
    assert all(first != second for first, second in zip(*figures, strict=True))
    visit(studio, computed(disturbed, "medium-0002", LaserPolicy(rank="25%")))


SITES = [f"layers.{layer}.{name}" for layer in (0, 1) for name in ("self_attn.qkv_proj", "mlp.down_proj")]


def test_events_and_angles_are_the_engines(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?puzzle=easy-0005&min_fidelity=0.995&patience=1")
    session = computed(shipped(), "easy-0005", LaserPolicy(rank="25%", min_fidelity=0.995, patience=1))
    studio.seek(50 / LENGTH)
    studio.at(50)
    frame = session.seek(50)
    events = [event for recorded in session.frames for event in recorded.events]
    lines = studio.events()
    assert len(lines) == len(events)
    for line, event in zip(lines, reversed(events), strict=True):
        assert event.text.replace("reset by SVD", "RESET") in line
    studio.page.locator('#site-map [data-site="layers.1.mlp.gate_up_proj"]').click()
    expect(studio.page.locator("#basis-title")).to_have_text("Basis · L1 gate·up")  # drawn with the next picture
    angles = frame.sites["layers.1.mlp.gate_up_proj"].angles
    assert angles is not None and close(studio.text("basis-turn"), max(angles), 0.1)
    assert studio.text("basis-rank") == f"rank {frame.sites['layers.1.mlp.gate_up_proj'].rank} of 128"
