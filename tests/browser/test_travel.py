"""Breakpoints, watches, bookmarks and steps of every size, as a user has them: by keys and clicks, read off the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.studio_page import StudioPage

LENGTH = 120  # of the demo: 8 supervision steps of 3 H cycles of 5


@pytest.fixture
def studio(studio_server: str, open_page: Callable[..., Page]) -> StudioPage:
    return StudioPage.opened(open_page, studio_server)


def stopped(studio: StudioPage, name: str) -> None:
    """Wait until the page says that it stopped there."""
    studio.until("stopped", name)
    studio.until("state", "paused")


def type_breakpoint(studio: StudioPage, text: str) -> None:
    studio.page.fill("#breakpoint-field", text)
    studio.page.press("#breakpoint-field", "Escape")  # the list of what can be written, should it be open, is in nobody's way
    studio.page.locator("#breakpoint-form button[type=submit]").click()


def test_play_stops_at_a_breakpoint_whose_fidelity_is_the_one_shown(studio: StudioPage) -> None:
    page = studio.page
    page.keyboard.press("b")
    expect(page.locator("#breakpoint-field")).to_be_focused()
    page.select_option("#breakpoint-kind", label="a site's fidelity below")
    page.locator("#breakpoint-values select").select_option("layers.1.mlp.down_proj")
    page.locator("#breakpoint-values input").fill("0.98")
    expect(page.locator("#breakpoint-field")).to_have_value("fidelity(layers.1.mlp.down_proj) < 0.98")
    page.locator("#breakpoint-form button[type=submit]").click()
    expect(page.locator("#breakpoint-list li")).to_have_count(1)
    studio.click("play")
    stopped(studio, "b1")
    shown = float(studio.site("layers.1.mlp.down_proj")[1])
    assert shown < 0.98 and "stopped at b1" in studio.text("status-pill")
    first = studio.step
    expect(page.locator("#breakpoint-list li.here .count")).to_have_text("1×")
    expect(page.locator("#hits-list li")).to_have_count(1)
    for _ in range(first - 1):  # at no step before it did it lie below
        page.keyboard.press("ArrowLeft")
    studio.at(1)
    for step in range(2, first):
        studio.click("step")
        studio.at(step)
        above = studio.site("layers.1.mlp.down_proj")[1]
        assert above == "exact" or float(above) >= 0.98
    page.locator("#hits-list button").last.click()
    studio.at(first)


def test_a_mistake_is_shown_at_its_character_and_words_are_offered(studio: StudioPage) -> None:
    page = studio.page
    studio.tab("breakpoints")
    type_breakpoint(studio, "reset | q_hlat > 0")
    problem = page.locator("#breakpoint-problem")
    expect(problem).to_contain_text("did you mean q_halt?")
    text, caret = problem.locator("code").inner_text().split("\n")
    assert text[caret.index("^") : caret.rindex("^") + 1] == "q_hlat"
    expect(page.locator("#breakpoint-list li")).to_have_count(0)
    page.fill("#breakpoint-field", "min window_fi")
    offers = page.locator("#offers li")
    expect(offers.first).to_contain_text("window_fidelity")
    page.press("#breakpoint-field", "ArrowDown")
    page.press("#breakpoint-field", "ArrowDown")
    page.press("#breakpoint-field", "Enter")
    expect(page.locator("#breakpoint-field")).to_have_value("min window_fidelity(")
    expect(offers.first).to_contain_text("layers.0.self_attn.qkv_proj")
    page.press("#breakpoint-field", "Tab")
    page.locator("#breakpoint-field").press_sequentially(") < 0.9")
    page.press("#breakpoint-field", "Enter")
    expect(page.locator("#breakpoint-list .what input")).to_have_value("min window_fidelity(layers.0.self_attn.qkv_proj) < 0.9")
    expect(problem).to_be_hidden()


def test_hits_one_shot_log_and_switch(studio: StudioPage) -> None:
    page = studio.page
    studio.tab("breakpoints")
    studio.click("breakpoint-more")
    page.fill("#breakpoint-log", "cycle {h} of {s}")
    type_breakpoint(studio, "cycle")
    expect(page.locator("#breakpoint-list li")).to_have_count(1)
    page.fill("#breakpoint-hits", "% 2")
    type_breakpoint(studio, "index % 4 == 0")
    expect(page.locator("#breakpoint-list li")).to_have_count(2)
    page.locator("#breakpoint-options .switch").click()
    type_breakpoint(studio, "index == 11")
    expect(page.locator("#breakpoint-list li")).to_have_count(3)
    studio.click("play")
    stopped(studio, "b2")
    assert studio.step == 8
    studio.click("play")
    stopped(studio, "b3")
    assert studio.step == 11
    expect(page.locator("#breakpoint-list li.off")).to_have_count(1)
    assert page.locator("#hits-list li").all_inner_texts() == [
        "t 11\nb3\nstopped", "t 10\nb1\ncycle 2 of 1", "t 8\nb2\nstopped", "t 5\nb1\ncycle 1 of 1",
    ]  # fmt: skip
    page.locator('#breakpoint-list [data-name="b2"] input[type=checkbox]').uncheck()
    expect(page.locator("#breakpoint-list li.off")).to_have_count(2)
    studio.seek(16 / LENGTH)
    studio.at(16)
    assert studio.status("stopped") == ""
    page.locator('#breakpoint-list [data-name="b3"] .away').click()
    expect(page.locator("#breakpoint-list li")).to_have_count(2)


def test_a_breakpoint_is_renamed_and_its_expression_edited_where_it_stands(studio: StudioPage) -> None:
    page = studio.page
    studio.tab("breakpoints")
    for text in ("index == 4", "index == 90"):
        type_breakpoint(studio, text)
        expect(page.locator("#breakpoint-field")).to_have_value("")
    names = page.locator("#breakpoint-list .name-field")
    names.first.fill("early")
    names.first.press("Enter")
    expect(page.locator('#breakpoint-list [data-name="early"]')).to_have_count(1)
    assert names.evaluate_all("all => all.map((one) => one.value)") == ["early", "b2"], "it stands where it stood"
    studio.click("play")
    stopped(studio, "early")
    assert studio.step == 4
    row = page.locator('#breakpoint-list [data-name="early"]')
    expect(row.locator(".count")).to_have_text("1×")
    # What cannot be is told below it, and Escape leaves it as it was.
    field = row.locator(".what input")
    field.fill("index = 7")
    field.press("Enter")
    expect(row.locator(".problem")).to_be_visible()
    expect(field).to_be_focused()
    field.press("Escape")
    expect(row.locator(".problem")).to_be_hidden()
    expect(field).to_have_value("index == 4")
    # A name that is taken is refused, and the field says what is so again.
    names.first.fill("b2")
    names.first.press("Enter")
    expect(page.locator("#notice")).to_contain_text("already")
    expect(names.first).to_have_value("early")
    # Another expression counts anew; leaving the field is enough.
    field.fill("index == 7")
    names.nth(1).click()
    expect(row.locator(".count")).to_have_text("0×")
    studio.click("play")
    stopped(studio, "early")
    assert studio.step == 7


def test_steps_of_every_size_by_keys(studio: StudioPage) -> None:
    press = studio.page.keyboard.press
    for key, step in (
        ("Shift+ArrowRight", 5), ("ArrowRight", 6), ("o", 10), ("o", 15), (">", 30), ("Shift+ArrowLeft", 25), ("<", 15), ("<", 0), ("<", 0),
        ("p", 0),
    ):  # fmt: skip
        press(key)
        studio.at(step)
    studio.seek(1)
    studio.at(LENGTH)
    for key in (">", "o", "Shift+ArrowRight", "n"):  # the ends of time stop, they do not fail
        press(key)
        studio.at(LENGTH)
    assert studio.status("state") == "done"
    press("p")
    studio.until("stopped", "until")
    last = studio.step
    assert 0 < last < LENGTH
    press("p")
    studio.until_script("last => Number(document.getElementById('status').dataset.step) < last", last)
    press("n")
    studio.at(last)


def test_watches_and_bookmarks_last_in_a_link(studio: StudioPage, studio_server: str, open_page: Callable[..., Page]) -> None:
    page = studio.page
    studio.seek(20 / LENGTH)
    studio.at(20)
    studio.tab("watches")
    page.fill("#watch-field", "residual")
    page.press("#watch-field", "Enter")
    row = page.locator("#watch-list li")
    expect(row).to_have_count(1)
    expect(row.locator("b")).not_to_have_text("–")
    expect(row.locator(".range")).to_contain_text("0 to ")  # over all steps, from step 0 on
    before = row.locator("b").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    studio.click("bookmark-here")
    page.locator("#bookmark-list .note-field").fill("half of it is right")
    page.keyboard.press("Enter")
    expect(page.locator("#timeline-flags button")).to_have_count(1)
    studio.until_script("decodeURIComponent(location.search.replaceAll('+', ' ')).includes('mark=20~m1~half of it is right')")
    page.locator("#timeline").click(position={"x": 600, "y": 40})
    studio.until_script("Number(document.getElementById('status').dataset.step) > 20")
    expect(row.locator("b")).not_to_have_text(before)
    page.locator("#timeline-flags button").click()
    studio.at(20)
    expect(row.locator("b")).to_have_text(before)
    studio.until_script("new URLSearchParams(location.search).get('step') === '20'")
    again = StudioPage.opened(open_page, studio_server, page.evaluate("location.search"))
    again.at(20)
    again.tab("watches")
    expect(again.page.locator("#watch-list b")).to_have_text(before)
    expect(again.page.locator("#bookmark-list .note-field")).to_have_value("half of it is right")
    again.page.locator("#watch-list .away").click()
    expect(again.page.locator("#watch-list li")).to_have_count(0)


def test_the_inside_of_a_step_goes_site_by_site(studio: StudioPage) -> None:
    page = studio.page
    studio.seek(7 / LENGTH)
    studio.at(7)
    page.keyboard.press("i")
    rows = page.locator("#inside-rows > div")
    expect(rows).to_have_count(8)
    assert rows.first.inner_text().split("\n")[:3] == ["1", "L0 qkv", "128 → 384"]
    for n, site in enumerate(("layers.0.self_attn.qkv_proj", "layers.0.self_attn.o_proj", "layers.0.mlp.gate_up_proj")):
        expect(page.locator("#inside-site")).to_have_text(site)
        assert rows.nth(n).inner_text().split("\n")[5][:6] == studio.site(site)[1]  # F is the one on screen
        page.locator("#inside-sites").press("ArrowDown")
    for _ in range(5):
        page.locator("#inside-sites").press("ArrowDown")
    studio.at(8)  # past the last site: the next net application
    expect(page.locator("#inside-title")).to_contain_text("Inside step 8")
    expect(page.locator("#inside-rows > .stale")).to_have_count(0)
    page.click("#inside-close")
    expect(page.locator("#inside")).to_be_hidden()


def test_the_historys_budget_is_set_and_what_went_is_said(studio: StudioPage) -> None:
    page = studio.page
    studio.seek(1)
    studio.at(LENGTH)
    studio.click("travel-open")
    expect(page.locator("#history-budget")).to_have_value("256")
    expect(page.locator("#kept-said")).to_contain_text("nothing had to go")
    page.fill("#history-budget", "2")
    page.press("#history-budget", "Enter")
    expect(page.locator("#kept-from")).to_contain_text("earlier dropped")
    expect(page.locator("#kept-said")).to_contain_text("activations before step")
    studio.until_script("location.search.includes('history=2')")
    page.keyboard.press("Escape")
    studio.seek(0.1)
    studio.at(12)
    page.keyboard.press("i")
    expect(page.locator("#inside-shape")).to_have_text("dropped from the history")
