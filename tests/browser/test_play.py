"""The main job: Play solves a held-out puzzle on screen while fidelity, ranks and memory are drawn."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page

from laser_studio.puzzles import load_puzzles
from tests.browser.studio_page import StudioPage

LENGTH = 120  # 8 supervision steps × 3 H cycles × (4 + 1)


def test_play_solves_the_demo_and_the_board_shows_it(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    puzzle = next(puzzle for puzzle in load_puzzles("sudoku-6x6") if puzzle.difficulty == "medium")
    assert puzzle.solution is not None
    assert studio.step == 0 and studio.status("state") == "paused" and studio.status("solved") == "false"
    assert studio.cells() == [str(value) if value else "" for value in puzzle.cells]

    studio.play_to_the_end()
    assert studio.status("solved") == "true" and studio.step == LENGTH
    assert studio.cells() == [str(value) for value in puzzle.solution]
    assert studio.marked("wrong") == []
    assert "solved" in studio.text("board-right") and "would stop" in studio.text("board-halt")


# Plots by the tab they are seen in; a hidden one is not drawn.
PLOTS = {
    "memory": ("fidelity-plot", "timeline-plot", "memory-plot"),
    "halting": ("halting-plot",),
    "latents": ("latent-plot",),
    "spectrum": ("spectrum-plot",),
    "angles": ("turn-plot", "angle-plot"),
    "rank": ("rank-plot",),
}


def pictures(studio: StudioPage, before: dict[str, str] | None = None) -> dict[str, str]:
    """Every plot as it is drawn now; of a plot drawn before, once it looks different."""
    taken: dict[str, str] = {}
    for tab, names in PLOTS.items():
        studio.tab(tab)
        if tab == "spectrum":  # asked for only while it is looked at
            studio.until_script("document.getElementById('spectrum-plot').ariaLabel !== ''")
        for name in names:
            if before is not None:
                # Not at once: on a busy machine the click may be seen only after the pictures that were asked for.
                studio.until_script(f"seen => document.getElementById('{name}').toDataURL() !== seen", before[name])
            taken[name] = studio.picture(name)
    return taken


def test_fidelity_ranks_and_memory_move(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    before = pictures(studio)
    savings = {studio.status("saving")}
    fidelities = {studio.text("tile-fidelity")}
    for step in (11, 22, 31, 62):
        studio.seek(step / LENGTH)
        studio.at(step)
        savings.add(studio.status("saving"))
        fidelities.add(studio.text("tile-fidelity"))
        before = pictures(studio, before)
    assert len(savings) == 5 and len(fidelities) == 5
    assert float(studio.status("saving")) > 0.3
    assert all(text.endswith("%") for text in studio.memory().values())
    assert any("basis started by SVD" in line for line in studio.events())


def test_the_first_paint_is_ready_to_play(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    assert studio.page.locator("#play").is_enabled()
    assert "Press Play" in studio.text("events-panel") and "Press Play" in studio.text("fidelity-panel")
    assert studio.text("tile-saving") == "–" and studio.status("saving") == "0.0000"
    assert len(studio.memory()) == 8 and studio.page.locator("#site-map .site").count() == 8
    assert "sudoku-6x6" in studio.page.locator("#model input").input_value()
    assert "medium" in studio.page.locator("#puzzle input").input_value()
