"""Looking deeper, in a real browser: a cell is chosen by hand and by keys, what is drawn follows, findings lead to their steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.studio_page import StudioPage

OSCILLATES = "?model=maze-9x9-mixer-early&puzzle=generated:easy:4&step=100&beyond=1"


@pytest.fixture
def studio(open_page: Callable[..., Page], studio_server: str) -> StudioPage:
    """The demo some steps into its run, in the layout that looks into the answer."""
    studio = StudioPage.opened(open_page, studio_server, "?puzzle=medium-0001&step=23")
    studio.at(23)
    studio.page.locator("#views input[value=solve]").check(force=True)
    return studio


def says(studio: StudioPage, identifier: str, words: str) -> None:
    """Wait until an element's description holds these words."""
    studio.until_script("([id, words]) => document.getElementById(id).getAttribute('aria-label').includes(words)", [identifier, words])


def test_a_cell_is_chosen_and_looked_into(studio: StudioPage) -> None:
    page = studio.page
    says(studio, "cell-plot", "Token probabilities of cell")  # one was chosen to begin with
    page.locator("#board .cell").nth(7).click()
    expect(page.locator("#board")).to_have_attribute("data-picked", "r2c2")
    expect(page.locator("#cell-title")).to_contain_text("r2c2")
    says(studio, "cell-plot", "cell r2c2 at step 20")  # the last update of z_H
    says(studio, "reads-plot", "Cell r2c2 at step 23, layer 0, attention, exact")
    label = page.locator("#cell-plot").get_attribute("aria-label") or ""
    shown = {part.rsplit(" ", 2)[0].strip(): float(part.rsplit(" ", 2)[1]) for part in label.split(": ", 1)[1].split(",")}
    assert sum(shown.values()) == pytest.approx(100, abs=1)
    answer = studio.cells()[7].strip()
    assert max(shown, key=lambda token: shown[token]) == answer
    expect(page.locator("#cell-says")).to_contain_text(answer)

    # Compressed and the difference are drawn at once; a head and a layer of their own are asked for.
    exact = studio.picture("reads-plot")
    page.locator("#reads-kind input[value=difference]").check(force=True)
    says(studio, "reads-plot", "difference")
    assert studio.picture("reads-plot") != exact
    page.select_option("#reads-head", "2")
    page.select_option("#reads-layer", "1")
    says(studio, "reads-plot", "layer 1")
    expect(page.locator("#reads-note")).to_contain_text("lies elsewhere")


def test_what_a_cell_reads_is_shown_over_the_board_in_every_layout(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?puzzle=medium-0001&step=23")
    studio.at(23)
    page, board = studio.page, studio.page.locator("#board")
    heat = "[...document.querySelectorAll('#board .cell')].map((cell) => getComputedStyle(cell).backgroundColor)"
    expect(page.locator("#board-reads")).to_be_hidden()  # no cell is chosen
    plain = page.evaluate(heat)
    page.locator("#board .cell").nth(20).click()
    page.click("#board-reads")
    expect(board).to_have_attribute("data-reads", "r4c3 23")
    expect(page.locator("#heat-legend")).to_be_visible()
    expect(page.locator("#board-confidence")).to_be_hidden()
    coloured = page.evaluate(heat)
    # The colours are those of the weights themselves: cividis grows lighter with them, and its end is the largest.
    assert len(set(coloured)) > 10 and coloured != plain
    page.locator("#views input[value=solve]").check(force=True)
    says(studio, "reads-plot", "Cell r4c3 at step 23, layer 0, attention, exact")
    label = page.locator("#reads-plot").get_attribute("aria-label") or ""
    largest = [part.rsplit(" ", 2)[0].strip() for part in label.split(": ", 1)[1].split(",")]
    cells = [6 * (int(name[1]) - 1) + int(name[3]) - 1 for name in largest if name.startswith("r")]
    light = [sum(map(int, re.findall(r"\d+", colour))) for colour in coloured]
    assert [light[cell] for cell in cells] == sorted(light, reverse=True)[: len(cells)]
    share = label.split(f"{largest[0]} ", 1)[1].split(" %")[0]
    expect(page.locator("#heat-to")).to_have_text(f"{share} %")
    # It follows the card's choice, the cell and the step; without a cell the board is as it was.
    page.locator("#reads-kind input[value=difference]").check(force=True)
    expect(page.locator("#heat-from")).to_contain_text("−")
    page.locator("#reads-kind input[value=exact]").check(force=True)
    page.locator("#board .cell").nth(0).click()
    expect(board).to_have_attribute("data-reads", "r1c1 23")
    studio.click("step")
    expect(board).to_have_attribute("data-reads", "r1c1 24")
    board.focus()
    page.keyboard.press("Escape")
    expect(board).to_have_attribute("data-reads", "")
    expect(page.locator("#board-reads")).to_be_hidden()
    expect(page.locator("#board-confidence")).to_be_visible()


def test_the_board_takes_keys_only_while_it_has_the_focus(studio: StudioPage) -> None:
    page, board = studio.page, studio.page.locator("#board")
    page.locator("#board .cell").nth(0).click()
    expect(board).to_have_attribute("data-picked", "r1c1")
    board.focus()
    for key, cell in [("ArrowRight", "r1c2"), ("ArrowDown", "r2c2"), ("ArrowLeft", "r2c1"), ("ArrowLeft", "r2c1"), ("ArrowUp", "r1c1")]:
        page.keyboard.press(key)
        expect(board).to_have_attribute("data-picked", cell)
    assert studio.step == 23
    page.keyboard.press("Escape")
    expect(board).to_have_attribute("data-picked", "")
    expect(page.locator("#cell-empty")).to_be_visible()
    page.locator("#cell-title").click()
    board.evaluate("node => node.blur()")
    page.keyboard.press("ArrowLeft")
    studio.at(22)


def test_a_sites_directions_are_shown_and_what_their_removal_flips(studio: StudioPage) -> None:
    page = studio.page
    page.click('#site-map [data-site="layers.0.mlp.down_proj"]')
    says(studio, "directions-plot", "Directions of L0 down at step 23")
    expect(page.locator("#directions-title")).to_have_text("Directions of L0 down")
    before = studio.picture("directions-plot")
    page.click("#directions-flips")
    says(studio, "directions-plot", "flips")
    assert studio.picture("directions-plot") != before
    page.click('#site-map [data-site="layers.1.self_attn.qkv_proj"]')
    says(studio, "directions-plot", "Directions of L1 qkv at step 23")


def test_what_is_shown_follows_the_run_and_asks_nothing_while_hidden(studio: StudioPage) -> None:
    page = studio.page
    asked: list[str] = []

    def note(request: Any) -> None:
        if "component_server" in request.url:
            data = json.loads(request.post_data or "{}").get("data") or {}
            asked.extend([data["name"]] if str(data.get("name", "")).startswith("deeper.") else [])

    page.on("request", note)
    studio.click("step")
    studio.at(24)
    says(studio, "reads-plot", "at step 24")
    says(studio, "directions-plot", "at step 24")
    assert {"deeper.cell", "deeper.mixing", "deeper.directions"} <= set(asked)
    studio.click("restart")
    studio.at(0)
    expect(page.locator("#reads-empty")).to_be_visible()
    page.locator("#views input[value=compress]").check(force=True)
    page.wait_for_timeout(500)  # what was under way has come
    asked.clear()
    studio.play_to_the_end()
    assert not [name for name in asked if name != "deeper.findings"]


def test_findings_are_listed_with_figures_and_lead_to_their_steps(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, OSCILLATES)
    studio.at(100)
    expect(studio.page.locator("#tab-findings")).to_contain_text("Findings 1")
    studio.tab("findings")
    rows = studio.page.locator("#findings-list li")
    expect(rows).to_have_count(1)
    expect(rows.first).to_have_attribute("data-kind", "oscillation")
    expect(rows.first).to_contain_text("period 2 H cycles (10 steps)")
    rows.first.locator("button").click()
    studio.at(75)
    studio.page.locator("#views input[value=solve]").check(force=True)
    says(studio, "reads-plot", "mixer")
    expect(studio.page.locator("#reads-heads")).to_be_hidden()


def test_small_screens_show_all_of_it(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?puzzle=medium-0001&step=8", viewport={"width": 390, "height": 844})
    studio.at(8)
    studio.page.locator("#views input[value=solve]").check(force=True)
    says(studio, "directions-plot", "at step 8")
    for card in ("cell-card", "reads-card", "directions-card"):
        box = studio.page.locator(f"#{card}").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] > 200
