"""Puzzles of one's own as a user meets them: typed with their problems, edited by cell, uploaded, browsed, opened by link; ARC; batches."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from playwright.sync_api import Page, expect

from laser_studio.puzzles import get_domain, load_puzzles
from laser_studio.puzzles.arc_tasks import subset
from laser_studio.trm import TRM, TRMConfig, save_checkpoint
from tests.browser.studio_page import StudioPage

SUDOKU = get_domain("sudoku")
SIX = load_puzzles("sudoku-6x6")


def line(puzzle: object) -> str:
    return SUDOKU.format(puzzle).replace("\n", "")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(start_studio: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A studio with a table of puzzles and an untrained model of ARC tasks."""
    folder = tmp_path_factory.mktemp("puzzles")
    rows = [f"book,{line(puzzle)},{n}" for n, puzzle in enumerate(SIX[:40])]
    (folder / "mine.csv").write_text("\n".join(["source,q,rating", *rows]))
    torch.manual_seed(1)
    config = TRMConfig(
        vocab_size=12, seq_len=25, hidden_size=32, num_heads=2, H_cycles=1, L_cycles=2, halt_max_steps=2, puzzle_emb_ndim=32,
        puzzle_emb_len=1, num_puzzle_identifiers=len(subset(5)) + 1, forward_dtype="float32",
    )  # fmt: skip
    save_checkpoint(TRM(config), folder / "tasks", details={"task": "arc-5", "domain": "arc", "size": [5, 5]})
    return start_studio("--puzzles", str(folder / "mine.csv"), "--checkpoint", str(folder / "tasks"))


def opened_dialog(open_page: Callable[..., Page], server: str, query: str = "", **options: object) -> StudioPage:
    studio = StudioPage.opened(open_page, server, query, **options)
    studio.page.keyboard.press("e")
    expect(studio.page.locator("#puzzles")).to_be_visible()
    expect(studio.page.locator("#mine-open")).to_be_enabled()
    return studio


def test_a_typed_puzzle_shows_its_problems_and_opens_with_a_link_of_its_own(open_page: Callable[..., Page], server: str) -> None:
    studio = opened_dialog(open_page, server)
    page = studio.page
    assert page.locator("#typed-text").input_value() == SUDOKU.format(next(p for p in SIX if p.name == "medium-0001"))
    page.fill("#typed-text", "12345\n1")
    expect(page.locator("#typed-problem")).to_contain_text("6 cells: a Sudoku has 16, 36, 81 or 256")
    expect(page.locator("#mine-open")).to_be_disabled()
    page.fill("#typed-text", "11" + "." * 34)
    expect(page.locator("#mine-issues li").first).to_contain_text("row 1, column 1: 1 stands more than once in row 1")
    page.fill("#typed-text", SUDOKU.format(SIX[3]))
    expect(page.locator("#mine-says")).to_have_text("exactly one solution")
    page.click("#mine-open")
    expect(page.locator("#puzzles")).to_be_hidden()
    page.wait_for_function("location.search.includes('cells=sudoku')")
    assert studio.cells() == [SUDOKU.symbol(value) for value in SIX[3].cells]
    expect(page.locator("#puzzle input")).to_have_value("my puzzle")
    again = StudioPage.opened(open_page, server, page.evaluate("location.search"))
    assert again.cells() == studio.cells()


def test_cells_are_edited_on_the_board_and_the_text_follows(open_page: Callable[..., Page], server: str) -> None:
    studio = opened_dialog(open_page, server, "?puzzle=easy-0001")
    page = studio.page
    before = studio.cells()
    page.click("#typed-blank")
    expect(page.locator("#typed-text")).to_have_value("\n".join(["." * 6] * 6))
    box = page.locator("#mine-board").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 2.5 / 6, box["y"] + box["height"] * 1.5 / 6)
    page.keyboard.press("4")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("6")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("5")
    page.keyboard.press("Backspace")
    expect(page.locator("#typed-text")).to_have_value("......\n..46..\n......\n......\n......\n......")
    expect(page.locator("#mine-says")).to_have_text("several solutions")
    expect(page.locator("#mine-open")).to_be_enabled()
    page.click("#mine-open")
    page.wait_for_function("location.search.includes('cells=sudoku~6x6~a8ega26')")
    assert studio.step == 0 and studio.cells() != before and studio.cells()[8:10] == ["4", "6"]
    expect(page.locator("#board-right")).to_have_text("34 cells to fill")


def test_an_upload_is_browsed_and_what_does_not_fit_names_its_size(open_page: Callable[..., Page], server: str, tmp_path: Path) -> None:
    nine = load_puzzles("sudoku-9x9")[0]
    (tmp_path / "<b>mine.txt").write_text("\n".join(line(puzzle) for puzzle in [*SIX[:30], nine]))
    studio = opened_dialog(open_page, server)
    page = studio.page
    page.click("#tab-file")
    page.set_input_files("#file-input", tmp_path / "<b>mine.txt")
    expect(page.locator("#browse-count")).to_have_text("31 of 31")
    assert page.locator("#browse-source option").first.inner_text() == "<b>mine.txt"
    expect(page.locator("#browse-list button")).to_have_count(24)
    page.click("#browse-on")
    expect(page.locator("#browse-list button")).to_have_count(7)
    page.locator("#browse-list button").last.click()
    expect(page.locator("#mine-misfit")).to_contain_text("needs a model for a 9×9 Sudoku (81 cells)")
    expect(page.locator("#mine-model")).to_be_visible()
    page.locator("#browse-list button").first.click()
    expect(page.locator("#mine-misfit")).to_have_text("")
    expect(page.locator("#mine-title")).to_contain_text("puzzle-0025")
    page.click("#mine-open")
    page.wait_for_function("location.search.includes('cells=')")
    assert studio.cells() == [SUDOKU.symbol(value) for value in SIX[24].cells]
    (tmp_path / "bad.npy").write_bytes(b"\x80\x04")
    page.keyboard.press("e")
    page.click("#tab-file")
    page.set_input_files("#file-input", tmp_path / "bad.npy")
    expect(page.locator("#file-problem")).to_contain_text("a Python pickle, which is never opened")


def test_an_arc_task_is_drawn_with_its_palette_and_demonstrations(open_page: Callable[..., Page], server: str) -> None:
    studio = StudioPage.opened(open_page, server, "?model=tasks")
    page, task = studio.page, subset(5)[0]
    expect(page.locator("#demonstrations-list canvas")).to_have_count(2 * len(task.demonstrations))
    expect(page.locator("#demonstrations-says")).to_contain_text(f"task {task.name}")
    asked = task.tests[0][0]
    shown = page.locator("#board .cell:visible")
    expected = min(5, asked.shape[0] + 1) * min(5, asked.shape[1] + 1)
    expect(shown).to_have_count(expected)
    studio.play_to_the_end()
    assert "of" in studio.text("board-right") and studio.status("state") == "done"
    page.keyboard.press("e")
    expect(page.locator("#mine-palette button")).to_have_count(10)
    page.fill("#mine-columns", "2")
    page.fill("#mine-rows", "1")
    page.press("#mine-rows", "Enter")
    page.focus("#mine-board")
    page.keyboard.press("3")
    expect(page.locator("#mine-open")).to_be_enabled()
    page.click("#mine-open")
    page.wait_for_function("location.search.includes('cells=arc~1x2')")
    assert parse_qs(urlsplit(page.url).query)["cells"][0].endswith(f"~t:{task.name}")
    expect(page.locator("#demonstrations-list canvas")).to_have_count(2 * len(task.demonstrations))


def test_a_batch_fills_its_table_sorts_filters_opens_and_saves(open_page: Callable[..., Page], server: str) -> None:
    page = open_page()
    page.goto(f"{server}/batch?model=sudoku-6x6&source=mine.csv&count=5")
    page.wait_for_selector('#batch-page[data-state="empty"]')
    page.click("#batch-run")
    expect(page.locator("#batch-stop")).to_be_visible()
    expect(page.locator("#batch-rows tr")).to_have_count(5, timeout=120_000)
    expect(page.locator("#batch-run")).to_be_visible()
    expect(page.locator("#batch-solved")).to_have_text("100.0 %")
    page.click('#batch-heads [data-key="steps"]')
    column = page.locator("#batch-rows .of-steps")
    ascending = [int(text) for text in column.all_inner_texts()]
    assert ascending == sorted(ascending)
    page.click('#batch-heads [data-key="steps"]')
    page.wait_for_selector('th[aria-sort="descending"]')
    assert [int(text) for text in column.all_inner_texts()] == ascending[::-1]
    page.click("#batch-outcomes label:has-text('wrong')")
    expect(page.locator("#batch-rows tr")).to_have_count(0)
    page.click("#batch-outcomes label:has-text('all')")
    page.fill("#batch-find", "0003")
    expect(page.locator("#batch-rows tr")).to_have_count(1)
    with page.expect_download() as got:
        page.click("#batch-save")
    with Path(got.value.path()).open(encoding="utf-8", newline="") as file:
        saved = list(csv.DictReader(file))
    assert [row["id"] for row in saved] == [f"puzzle-{n:04d}" for n in range(1, 6)] and all(float(row["fidelity"]) > 0.9 for row in saved)
    page.click("#batch-rows a")
    page.wait_for_function("window.laserStudio?.ready === true")
    studio = StudioPage(page)
    assert studio.cells() == [SUDOKU.symbol(value) for value in SIX[2].cells]
    studio.play_to_the_end()
    assert studio.status("resets") == saved[2]["resets"] and studio.status("solved") == "true"


def test_a_batch_is_stopped_and_its_failures_are_browsed(open_page: Callable[..., Page], server: str) -> None:
    page = open_page()
    page.goto(f"{server}/batch?model=sudoku-4x4&count=60")
    page.wait_for_selector('#batch-page[data-state="empty"]')
    page.click("#batch-run")
    page.wait_for_selector("#batch-rows tr")
    page.click("#batch-stop")
    expect(page.locator("#batch-problem")).to_contain_text("stopped after", timeout=60_000)
    expect(page.locator("#batch-run")).to_be_visible()
    page.goto(f"{server}/batch?model=maze-9x9-mixer-early&count=120&tracker=0")
    page.wait_for_selector('#batch-page[data-state="empty"]')
    page.click("#batch-run")
    expect(page.locator("#batch-rows tr")).to_have_count(120, timeout=120_000)
    failed = page.locator("#batch-rows .pill.wrong").count()
    assert failed
    studio = opened_dialog(open_page, server, "?model=maze-9x9-mixer-early")
    studio.page.click("#tab-browse")
    expect(studio.page.locator("#browse-count")).to_contain_text("known to fail")
    studio.page.locator("#browse-fails").check()
    expect(studio.page.locator("#browse-list button small").first).to_contain_text("fails")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_nothing_overflows(open_page: Callable[..., Page], server: str, width: int, height: int) -> None:
    studio = opened_dialog(open_page, server, viewport={"width": width, "height": height})
    page = studio.page
    for tab in ("typed", "file", "browse"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("document.getElementById('puzzles').scrollWidth <= document.getElementById('puzzles').clientWidth")
    page.goto(f"{server}/batch")
    page.wait_for_selector('#batch-page[data-state="empty"]')
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width >= 1280:  # one line, also with the selects that only some sources have
        page.evaluate("for (const node of document.querySelectorAll('#batch-bar select')) node.hidden = false")
        bar = page.locator("#batch-bar")
        assert bar.evaluate("node => node.offsetHeight") <= 48
        assert bar.evaluate("node => node.scrollWidth <= node.clientWidth")
