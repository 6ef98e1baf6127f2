"""Links: the address names the view; opening it gives the same view, paused; copying says so; bad values are told."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.studio_page import StudioPage

LENGTH = 120


def view(studio: StudioPage) -> tuple[object, ...]:
    """Everything a link must bring back."""
    return (
        studio.step, studio.status("saving"), studio.status("resets"), studio.status("solved"), studio.cells(), studio.memory(),
        studio.text("tile-fidelity"), studio.text("board-halt"), studio.text("basis-turn"),
        [re.sub(r" · [\d.]+ ms$", "", line) for line in studio.events()],  # wall times are not part of a view
        studio.page.locator("#rank input[type=number]").input_value(), studio.page.locator("#puzzle input").input_value(),
    )  # fmt: skip


def test_the_copied_link_opens_the_same_step_paused(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?puzzle=hard-0004&rank=40%25", permissions=["clipboard-read", "clipboard-write"])
    studio.seek(20 / LENGTH)
    studio.at(20)
    studio.type_into("rank", "15")
    studio.slide("min-fidelity", "End")
    studio.seek(47 / LENGTH)
    studio.at(47)
    studio.click("share-link")
    expect(studio.page.locator("#notice")).to_contain_text("link to step 47 copied")
    link = studio.page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(studio_server) and "change=20" in link

    other = StudioPage.opened(open_page, studio_server, link.removeprefix(f"{studio_server}/"))
    other.at(47)
    other.until("state", "paused")
    other.page.wait_for_timeout(300)
    assert view(other) == view(studio)
    assert other.status("state") == "paused" and other.step == 47


def test_a_link_copied_on_the_way_names_the_step_that_is_sought(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?beyond=1", permissions=["clipboard-read", "clipboard-write"])
    page = studio.page
    page.keyboard.press("g")
    page.keyboard.type("3000")
    page.keyboard.press("Enter")
    studio.until_script("Number(document.getElementById('status').dataset.step) > 5")
    studio.click("share-link")
    expect(page.locator("#notice")).to_contain_text("link to step 3000 copied")
    assert page.evaluate("navigator.clipboard.readText().then((link) => new URL(link).searchParams.get('step'))") == "3000"
    assert studio.step < 3000
    studio.click("pause")


def test_the_address_follows_the_view_and_a_reload_keeps_it(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    for step in (1, 2, 3):
        studio.click("step")
        studio.at(step)
    studio.until_script("new URLSearchParams(location.search).get('step') === '3'")
    assert studio.page.evaluate("history.length") <= 2  # the back button of the browser is not filled with steps
    before = view(studio)
    studio.page.reload()
    studio.page.wait_for_function("window.laserStudio?.ready === true")
    studio.at(3)
    assert view(studio) == before


def test_bad_values_open_the_default_and_are_named(open_page: Callable[..., Page], studio_server: str) -> None:
    query = "?model=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&puzzle=..%2F..%2Fetc&rank=900%25&min_fidelity=NaN&step=-3"
    studio = StudioPage.opened(open_page, studio_server, query)
    notice = studio.page.locator("#notice")
    expect(notice).to_be_visible()
    for word in ("model", "puzzle", "rank", "min_fidelity", "step"):
        expect(notice).to_contain_text(word)
    assert studio.page.locator("#notice img").count() == 0
    assert studio.step == 0 and studio.page.locator("#rank input[type=number]").input_value() == "25"
    assert "rank=25%25" in studio.page.url


def test_a_step_past_the_end_opens_at_the_end(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?step=5000")
    studio.at(LENGTH)
    studio.until("state", "done")
