"""The evaluation page as a user meets it: a new evaluation with progress, its tables and plots, and failures that open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from laser_studio.assets import asset_path
from tests.browser.studio_page import StudioPage


@pytest.fixture(scope="module")
def server(start_studio: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A studio that also offers the small shipped model under another name, without a report."""
    folder = tmp_path_factory.mktemp("models") / "fresh"
    shutil.copytree(asset_path("checkpoints", "sudoku-4x4"), folder)
    (folder / "evaluation.json").unlink(missing_ok=True)
    return start_studio("--checkpoint", str(folder))


def opened(open_page: Callable[..., Page], url: str, query: str = "", **options: object) -> Page:
    page = open_page(**options)
    page.goto(f"{url}/evaluation{query}")
    page.wait_for_selector('#evaluation[data-state="report"][data-drawn], #evaluation[data-state="empty"]')
    return page


def test_an_evaluation_from_nothing_to_its_plots(open_page: Callable[..., Page], server: str) -> None:
    page = opened(open_page, server, "?model=fresh")
    expect(page.locator("#eval-empty")).to_contain_text("No report of this model yet")
    page.fill("#eval-each", "12")
    page.fill("#eval-ranks", "50%, 10%")
    page.click("#eval-run")
    expect(page.locator("#eval-progress")).to_be_visible()
    page.wait_for_selector('#evaluation[data-state="report"][data-drawn]', timeout=120_000)
    expect(page.locator("#eval-run")).to_be_visible()
    rows = page.locator("#cost-rows tr")
    assert rows.locator("th").all_inner_texts() == ["exact activations", "rank 50%", "rank 10%"]
    with page.expect_download() as got:
        page.click("#eval-save")
    report = json.loads(got.value.path().read_text())
    exact = report["arms"][0]["exact"]
    shares = [float(cell.removesuffix(" %")) for cell in rows.nth(0).locator("td").all_inner_texts()[:3]]
    assert shares == pytest.approx([100 * curve[-1] for curve in exact], abs=0.06)
    traces = page.evaluate("document.getElementById('accuracy-plot').data.filter((t) => t.name).map((t) => t.y)")
    assert traces == [arm["exact"][group] for group in range(3) for arm in report["arms"]]
    bars = page.evaluate("document.getElementById('steps-plot').data.map((t) => t.y)")
    assert bars == report["solved_at"] and sum(map(sum, bars)) == 36
    assert "/evaluation?" in page.url and "each=12" in page.url and "model=fresh" in page.url
    page.reload()
    page.wait_for_selector('#evaluation[data-state="report"][data-drawn]')


def test_a_failure_opens_in_the_debugger_and_is_offered_there(open_page: Callable[..., Page], server: str) -> None:
    page = opened(open_page, server, "?model=sudoku-6x6")
    name = page.locator("#failure-rows a").first.inner_text()
    page.locator("#failure-rows a").first.click()
    page.wait_for_function("window.laserStudio?.ready === true")
    studio = StudioPage(page)
    difficulty, seed = name.split(" #")
    assert f"puzzle=generated%3A{difficulty}%3A{seed}" in page.url
    studio.choose("difficulty", "fails")
    page.wait_for_function("document.querySelector('#difficulty input').value === 'fails'")
    page.wait_for_function("document.querySelector('#puzzle input').value.endsWith('wrong')")
    page.locator("#evaluate").click()
    page.wait_for_selector('#evaluation[data-state="report"]')
    assert page.locator("#eval-model").input_value() == "sudoku-6x6"


def test_stop_theme_and_bad_input(open_page: Callable[..., Page], server: str) -> None:
    page = opened(open_page, server, "?model=no-such-model")
    expect(page.locator("#eval-problem")).to_contain_text("no model")
    page.wait_for_selector('#evaluation[data-state="report"][data-drawn]')
    page.fill("#eval-ranks", "half")
    page.click("#eval-run")
    expect(page.locator("#eval-problem")).to_contain_text("rank")
    page.fill("#eval-each", "1000")
    page.fill("#eval-ranks", "50%")
    page.click("#eval-run")
    page.click("#eval-stop")
    expect(page.locator("#eval-problem")).to_contain_text("stopped", timeout=60_000)
    expect(page.locator("#eval-run")).to_be_visible()
    before = page.locator("#evaluation").get_attribute("data-drawn")
    page.click("#eval-theme")
    page.wait_for_function(f"document.getElementById('evaluation').dataset.drawn !== '{before}'")
    assert page.evaluate("document.documentElement.dataset.theme") in ("dark", "light")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080), (390, 844)])
def test_nothing_overflows(open_page: Callable[..., Page], server: str, width: int, height: int) -> None:
    page = opened(open_page, server, "?model=sudoku-6x6", viewport={"width": width, "height": height})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width >= 1280:
        assert page.evaluate("document.documentElement.scrollHeight") <= height
    heads = page.locator("#eval-head div, #evaluation h2")
    assert heads.evaluate_all("all => all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)") == []
    if width >= 1280:  # what stands beside a figure is on its line
        lines = page.locator("#eval-head small").evaluate_all("all => all.map((e) => e.getClientRects().length)")
        assert lines == [1] * 5
        assert page.locator("#eval-head small").evaluate_all("all => Math.max(...all.map((e) => e.offsetHeight))") < 24
