"""Layouts and sizes: what a user has made and chosen is still there after the window has been a phone's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.studio_page import StudioPage

SIZES = ((390, 844), (1920, 1080), (1280, 800))
WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"


AT_THE_EDGE = """name => {
    const right = node => node.getBoundingClientRect().right, field = document.getElementById(name);
    return right(field.querySelector('.container > .wrap')) - right(field.querySelector('.icon-wrap'));
}"""


def test_arrows_of_lists_stand_at_the_edge_and_not_on_what_is_chosen(open_page: Callable[..., Page], studio_server: str) -> None:
    page = StudioPage.opened(open_page, studio_server, "?model=sudoku-6x6&puzzle=hard-0001").page
    for name in ("model", "difficulty", "puzzle"):
        assert 0 <= page.evaluate(AT_THE_EDGE, name) <= 10, name


@pytest.mark.parametrize("view", ["solve", "compress", "compare"])
def test_nothing_is_lost_or_cut_when_the_window_changes(open_page: Callable[..., Page], studio_server: str, view: str) -> None:
    query = "?model=sudoku-6x6&puzzle=hard-0001&watch=residual&mark=4~here&break=unsolved&step=10"
    studio = StudioPage.opened(open_page, studio_server, query)
    studio.at(10)
    page = studio.page
    page.locator("#board .cell").nth(7).click()
    page.locator(f"#views input[value={view}]").check(force=True)
    if view == "compare":
        page.select_option("#compare-with", index=1)
        expect(page.locator("#compare-rows > div")).to_have_count(8, timeout=30_000)
    cells = studio.cells()
    picked = page.locator("#board").get_attribute("data-picked")
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for tab, rows in (("watches", "#watch-list li"), ("breakpoints", "#breakpoint-list li"), ("watches", "#bookmark-list li")):
            studio.tab(tab)
            expect(page.locator(rows)).to_have_count(1)
        expect(page.locator(f"#view-{view}")).to_be_visible()
        assert not page.evaluate(WIDE), f"wider than {width}"
        assert studio.step == 10 and studio.cells() == cells
        assert page.locator("#board").get_attribute("data-picked") == picked
    studio.click("step")
    studio.at(11)
