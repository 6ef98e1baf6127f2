"""The page as such: ids, one mount, two pages at once, an expired run, sizes and themes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from tests.browser.studio_page import StudioPage

FIXED_IDS = [
    "play", "pause", "step", "back", "restart", "timeline", "board", "site-map", "model", "puzzle", "rank", "min-fidelity", "patience",
    "speed", "fidelity-panel", "basis-panel", "memory-panel", "events-panel", "share-link", "status",
]  # fmt: skip
LENGTH = 120


def test_ids_are_there_once_and_controls_are_mounted_once(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    controls = [*FIXED_IDS[:6], "rank", "speed", "model"]
    studio.page.evaluate("ids => { window.first = ids.map((id) => document.getElementById(id)); }", controls)
    studio.slide("rank", "ArrowRight")
    studio.play_to_the_end()
    count = 'ids => ids.map((id) => document.querySelectorAll(`[id="${id}"]`).length)'
    assert studio.page.evaluate(count, FIXED_IDS) == [1] * len(FIXED_IDS)
    same = "ids => ids.every((id, n) => document.getElementById(id) === window.first[n])"
    assert studio.page.evaluate(same, controls) is True
    assert studio.page.evaluate("window.laserStudio.mounts") == 1


def test_two_pages_do_not_disturb_one_another(open_page: Callable[..., Page], studio_server: str) -> None:
    alone = StudioPage.opened(open_page, studio_server, "?puzzle=medium-0007")
    alone.play_to_the_end()
    expected = (alone.status("saving"), alone.status("resets"), alone.cells(), alone.text("tile-fidelity"))

    first = StudioPage.opened(open_page, studio_server, "?puzzle=medium-0007")
    second = StudioPage.opened(open_page, studio_server, "?puzzle=hard-0009&rank=40%25")
    for studio in (first, second):
        studio.slide("speed", "End")
    first.click("play")
    second.click("play")
    second.until_script("Number(document.getElementById('status').dataset.step) >= 10")
    second.slide("rank", "Home")
    second.click("restart")
    second.click("play")
    first.until("state", "done", timeout=180_000)
    second.until("state", "done", timeout=180_000)
    assert (first.status("saving"), first.status("resets"), first.cells(), first.text("tile-fidelity")) == expected
    assert second.cells() != first.cells()
    assert first.page.locator("#rank input[type=number]").input_value() == "25"


def test_an_expired_run_says_so_and_offers_to_reload(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    # The goodbye that a leaving page sends, while this one stays.
    studio.page.evaluate("window.dispatchEvent(new Event('pagehide'))")
    studio.page.wait_for_timeout(300)
    studio.page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    studio.page.wait_for_timeout(300)
    studio.click("step")
    studio.at(1)  # a page that comes back from the browser's memory gets a new run


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_is_remembered(open_page: Callable[..., Page], studio_server: str, scheme: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, color_scheme=scheme)
    other = "dark" if scheme == "light" else "light"
    root = studio.page.locator("html")
    expect(root).to_have_attribute("data-theme", scheme)
    background = "getComputedStyle(document.getElementById('board-card')).backgroundColor"
    before = studio.page.evaluate(background)
    studio.click("theme")
    expect(root).to_have_attribute("data-theme", other)
    assert studio.page.evaluate(background) != before
    studio.page.reload()
    studio.page.wait_for_function("window.laserStudio?.ready === true")
    expect(root).to_have_attribute("data-theme", other)


@pytest.mark.parametrize(("width", "height", "scrolls"), [(1280, 800, False), (1920, 1080, False), (1440, 900, False), (390, 844, True)])
def test_it_fits_the_screen(open_page: Callable[..., Page], studio_server: str, width: int, height: int, scrolls: bool) -> None:
    studio = StudioPage.opened(open_page, studio_server, viewport={"width": width, "height": height})
    size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    before = studio.page.evaluate(size)
    assert before[0] <= width and (scrolls or before[1] <= height)
    places = "ids => ids.map((id) => document.getElementById(id).getBoundingClientRect()).map((b) => [b.x, b.y, b.width, b.height])"
    panels = ["board", "site-map", "fidelity-panel", "memory-panel", "basis-panel", "events-panel", "timeline", "play"]
    if not scrolls:
        placed = studio.page.evaluate(places, panels)
        studio.play_to_the_end()
        assert studio.page.evaluate(places, panels) == placed  # nothing jumps while data arrive
        for x, y, wide, high in placed:
            assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height and wide > 20 and high > 20
    else:
        studio.click("step")
        studio.at(1)


# What the timeline writes along its top, with the place and half the width of each.
NAMES = """() => new Promise((seen) => {
  const write = CanvasRenderingContext2D.prototype.fillText, names = [];
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    if (this.canvas.id === "timeline-plot" && /^s\\d+$/.test(text)) names.push([text, x, this.measureText(text).width / 2]);
    return write.call(this, text, x, y);
  };
  document.getElementById("scale-kind").click();
  requestAnimationFrame(() => requestAnimationFrame(() => { CanvasRenderingContext2D.prototype.fillText = write; seen(names); }));
})"""


@pytest.mark.parametrize("query", ["", "?beyond=1"])
def test_no_name_on_a_narrow_timeline_touches_another_or_the_cursor(open_page: Callable[..., Page], studio_server: str, query: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, query, viewport={"width": 390, "height": 844})
    left, right, cursor = 62, 14, 6
    for step in (1, 8, 52, 60, 64, 68, 72, 75, 76, 119):
        studio.page.locator("#brand").click()
        studio.page.keyboard.press("g")
        studio.page.keyboard.type(str(step))
        studio.page.keyboard.press("Enter")
        studio.at(step)
        span = int(studio.page.locator("#timeline").get_attribute("aria-valuemax") or 0)
        wide = studio.page.evaluate("document.getElementById('timeline-plot').clientWidth")
        names = sorted(studio.page.evaluate(NAMES), key=lambda name: name[1])
        here = f"s{(step - 1) // 15 + 1}"
        assert here in [text for text, _, _ in names] and len(names) >= 6
        taken = sorted([*((x - half, x + half) for _, x, half in names), (at := left + step / span * (wide - left - right), at)])
        assert all(end <= start for (_, end), (start, _) in pairwise(taken)), (step, names)
        assert all(abs(x - at) >= half + cursor for _, x, half in names), (step, names)
        assert taken[0][0] >= 0 and taken[-1][1] <= wide


def test_everything_that_shows_a_measure_explains_itself(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    page = studio.page
    for identifier in (
        "tile-saving",
        "tile-fidelity",
        "tile-resets",
        "tile-cost",
        "basis-turn",
        "memory-full",
        "memory-kept",
        "memory-basis",
    ):
        page.mouse.move(5, 5)
        page.locator(f"#{identifier}").hover()
        expect(page.locator("#tip")).to_be_visible()
        assert len(page.locator("#tip").inner_text()) > 20


def test_names_for_those_who_do_not_see(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    studio.seek(30 / LENGTH)
    studio.at(30)
    assert "at step 30" in str(studio.page.locator("#board").get_attribute("aria-label"))
    assert "8 sites" in str(studio.page.locator("#fidelity-plot").get_attribute("aria-label"))
    unnamed = """() => [...document.querySelectorAll('button, input, [role=slider]')]
        .filter((e) => e.offsetParent && !e.ariaLabel && !e.textContent.trim() && !e.labels?.length).map((e) => e.outerHTML.slice(0, 80))"""
    assert studio.page.evaluate(unnamed) == []
