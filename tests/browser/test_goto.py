"""Going to a step by its number, with keys alone."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from laser_studio.studio.run import MOST_BEYOND
from tests.browser.studio_page import StudioPage


def test_a_step_is_typed_and_shown(studio_server: str, open_page: Callable[..., Page]) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    page = studio.page
    page.keyboard.press("g")
    expect(page.locator("#goto")).to_be_visible()
    assert page.locator("#goto-step").get_attribute("max") == "120"
    page.keyboard.type("37")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_attribute("data-step", "37", timeout=30_000)
    expect(page.locator("#goto")).to_be_hidden()


def test_past_the_trained_depth_the_field_goes_as_far_as_the_server_lets_a_run_go(
    studio_server: str, open_page: Callable[..., Page]
) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?beyond=1")
    studio.page.keyboard.press("g")
    assert studio.page.locator("#goto-step").get_attribute("max") == str(120 + MOST_BEYOND)


def test_a_step_out_of_reach_is_refused_by_the_field_and_escape_changes_nothing(studio_server: str, open_page: Callable[..., Page]) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?step=3")
    page = studio.page
    expect(page.locator("#status")).to_have_attribute("data-step", "3", timeout=30_000)
    page.locator("#status-text").click()
    page.keyboard.type("121")
    page.keyboard.press("Enter")
    expect(page.locator("#goto")).to_be_visible()  # the browser names the largest value; nothing is sent
    page.keyboard.press("Escape")
    expect(page.locator("#goto")).to_be_hidden()
    assert studio.step == 3
