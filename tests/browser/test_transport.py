"""Play, Pause, Step, Back, Restart, the timeline, the events and the keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.studio_page import StudioPage

LENGTH = 120


@pytest.fixture
def studio(open_page: Callable[..., Page], studio_server: str) -> StudioPage:
    return StudioPage.opened(open_page, studio_server)


def test_step_advances_by_exactly_one(studio: StudioPage) -> None:
    for step in range(1, 8):
        studio.click("step")
        studio.at(step)
        assert studio.text("board-step") == f"step {step} / {LENGTH}"


def test_quick_clicks_are_all_counted(studio: StudioPage) -> None:
    for _ in range(5):
        studio.page.locator("#step").click(no_wait_after=True)
    studio.at(5)
    studio.page.wait_for_timeout(300)
    assert studio.step == 5


def test_back_and_restart_show_what_was_recorded(studio: StudioPage) -> None:
    studio.seek(12 / LENGTH)
    studio.at(12)
    studio.click("back")
    studio.at(11)
    before = (studio.cells(), studio.memory(), studio.text("tile-fidelity"), studio.status("saving"))
    studio.click("back")
    studio.at(10)
    studio.click("step")
    studio.at(11)
    assert (studio.cells(), studio.memory(), studio.text("tile-fidelity"), studio.status("saving")) == before
    studio.click("restart")
    studio.at(0)
    studio.click("back")  # the start is an end, not an error
    studio.at(0)
    assert studio.status("state") == "paused"


def test_pause_stops_the_picture(studio: StudioPage) -> None:
    studio.click("play")
    studio.until("state", "playing")
    studio.until_script("Number(document.getElementById('status').dataset.step) >= 5")
    studio.click("pause")
    assert studio.status("state") == "paused"
    stopped, drawn = studio.step, studio.page.evaluate("window.laserStudio.drawn")
    studio.page.wait_for_timeout(600)
    assert studio.step == stopped and studio.page.evaluate("window.laserStudio.drawn") == drawn
    studio.click("step")
    studio.at(stopped + 1)  # also where a reply was under way


def test_play_goes_at_the_chosen_speed(studio: StudioPage) -> None:
    studio.slide("speed", "Home")
    expect(studio.page.locator("#speed")).to_have_attribute("data-says", "1 step/s")  # written once the slider's event has come
    studio.click("play")
    studio.at(1)
    studio.page.wait_for_timeout(2_500)
    studio.click("pause")
    assert 2 <= studio.step <= 5


def test_the_timeline_seeks_by_click_drag_and_key(studio: StudioPage) -> None:
    studio.seek(0.5)
    studio.at(60)
    studio.seek(0.25)
    studio.at(30)
    timeline = studio.page.locator("#timeline")
    box = timeline.bounding_box()
    assert box is not None
    y, span = box["y"] + box["height"] / 2, box["width"] - 120
    studio.page.mouse.move(box["x"] + 106 + 0.25 * span, y)
    studio.page.mouse.down()
    for share in (0.3, 0.4, 0.2, 0.1):
        studio.page.mouse.move(box["x"] + 106 + share * span, y)
    studio.page.mouse.up()
    studio.at(12)
    timeline.focus()
    timeline.press("ArrowRight")
    studio.at(13)
    expect(timeline).to_have_attribute("aria-valuenow", "13")
    expect(timeline).to_have_attribute("aria-valuemax", str(LENGTH))


def test_an_event_jumps_to_its_step(studio: StudioPage) -> None:
    studio.seek(20 / LENGTH)
    studio.at(20)
    studio.page.locator("#events-list li", has_text="basis started by SVD").first.click()
    studio.at(5)
    later = studio.page.locator("#events-list li.future")
    assert later.count() > 0  # what was recorded beyond the cursor stays in the list, faint
    studio.page.locator("#events-list li").first.click()
    studio.until_script("Number(document.getElementById('status').dataset.step) > 5")


def test_keys_work_but_not_while_typing(studio: StudioPage) -> None:
    page = studio.page
    page.locator("#brand").click()
    page.keyboard.press("ArrowRight")
    studio.at(1)
    page.keyboard.press("ArrowRight")
    studio.at(2)
    page.keyboard.press("ArrowLeft")
    studio.at(1)
    page.keyboard.press(" ")
    studio.until("state", "playing")
    page.keyboard.press(" ")
    studio.until("state", "paused")
    page.keyboard.press("r")
    studio.at(0)

    studio.click("play")  # the button keeps the focus: the space bar must not press it again
    studio.until("state", "playing")
    page.keyboard.press(" ")
    studio.until("state", "paused")
    step = studio.step
    field = page.locator("#patience input[type=number]")
    field.focus()
    for key in ("ArrowLeft", "r", " ", "?"):
        field.press(key)
    page.wait_for_timeout(200)
    assert studio.step == step and studio.status("state") == "paused"
    assert not page.locator("#help").is_visible()


def test_help_opens_and_closes(studio: StudioPage) -> None:
    studio.page.locator("#brand").click()
    studio.page.keyboard.press("?")
    expect(studio.page.locator("#help")).to_be_visible()
    studio.page.keyboard.press("Escape")
    expect(studio.page.locator("#help")).to_be_hidden()
    studio.click("keys")
    expect(studio.page.locator("#help")).to_be_visible()


def test_play_at_the_end_shows_the_run_again(studio: StudioPage) -> None:
    studio.play_to_the_end()
    saving = studio.status("saving")
    studio.click("step")
    assert studio.step == LENGTH and studio.status("state") == "done"
    studio.slide("speed", "Home")
    studio.click("play")
    studio.until_script("Number(document.getElementById('status').dataset.step) < 100")
    studio.slide("speed", "End")
    studio.until("state", "done")
    assert studio.status("saving") == saving


def test_the_palette_finds_and_runs_a_command(studio: StudioPage) -> None:
    page = studio.page
    page.locator("#brand").click()
    page.keyboard.press("/")
    expect(page.locator("#palette-field")).to_be_focused()
    page.keyboard.type("step recursion")
    expect(page.locator("#palette-list li")).to_have_count(2)
    page.keyboard.press("Enter")
    studio.at(1)
    expect(page.locator("#palette")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("layout: solve")
    page.keyboard.press("Enter")
    expect(page.locator("#view-compress")).to_be_hidden()
    page.keyboard.press("v")
    expect(page.locator("#view-compress")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("no such thing")
    expect(page.locator("#palette .note")).to_be_visible()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert studio.step == 1


def test_no_two_commands_share_a_key_and_the_help_names_them_all(studio: StudioPage) -> None:
    studio.page.locator("#brand").click()
    studio.page.keyboard.press("?")
    shown = studio.page.locator("#help-keys dd").all_inner_texts()
    assert len(shown) == len(set(shown)) >= 14
    assert {"play or pause", "find a command", "next layout: solve, compress, compare"} <= set(shown)
