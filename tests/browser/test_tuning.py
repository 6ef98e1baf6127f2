"""Settings changed while it runs: from the next step on, through the real sliders, seen in events and figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.studio_page import StudioPage

LENGTH = 120


@pytest.fixture
def studio(open_page: Callable[..., Page], studio_server: str) -> StudioPage:
    return StudioPage.opened(open_page, studio_server)


def test_sliders_provoke_a_reset_that_is_seen(studio: StudioPage) -> None:
    studio.seek(10 / LENGTH)
    studio.at(10)
    assert studio.status("resets") == "0"
    studio.slide("rank", "Home")
    studio.slide("min-fidelity", "End")
    studio.slide("patience", "Home")
    studio.until_script("new URLSearchParams(location.search).getAll('change').length === 1")
    for step in range(11, 21):
        studio.click("step")
        studio.at(step)
    resets = int(studio.status("resets"))
    assert resets > 0 and studio.text("tile-resets") == str(resets)
    lines = [line for line in studio.events() if "RESET" in line]
    assert len(lines) == resets
    assert all("F " in line and line.endswith("ms") for line in lines)


def test_a_drag_on_the_slider_arrives(studio: StudioPage) -> None:
    slider = studio.page.locator("#rank input[type=range]")
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    studio.page.mouse.move(box["x"] + 0.25 * box["width"], y)
    studio.page.mouse.down()
    for share in (0.3, 0.5, 0.9, 0.6):
        studio.page.mouse.move(box["x"] + share * box["width"], y)
    studio.page.mouse.up()
    value = slider.input_value()
    assert 50 <= int(value) <= 70
    studio.until_script("rank => new URLSearchParams(location.search).get('rank') === `${rank}%`", value)
    studio.seek(8 / LENGTH)
    studio.at(8)
    assert studio.site("layers.0.self_attn.qkv_proj")[-1] == f"k {round(128 * int(value) / 100)}"


def test_a_typed_number_arrives_and_nonsense_does_not(studio: StudioPage) -> None:
    studio.type_into("patience", "7")
    studio.until_script("new URLSearchParams(location.search).get('patience') === '7'")
    studio.pick("refresh", "step")
    studio.until_script("new URLSearchParams(location.search).get('refresh') === 'step'")
    studio.click("step")
    studio.click("step")
    studio.at(2)
    assert studio.site("layers.0.mlp.down_proj")[-1].startswith("k ")  # a basis after the first step, not after the first cycle


def test_a_change_in_the_past_drops_the_recorded_future(studio: StudioPage) -> None:
    studio.seek(40 / LENGTH)
    studio.at(40)
    before = studio.status("saving")
    studio.seek(20 / LENGTH)
    studio.at(20)
    assert studio.page.locator("#events-list li.future").count() > 0
    studio.type_into("rank", "60")
    studio.until_script("document.querySelectorAll('#events-list li.future').length === 0")
    studio.seek(40 / LENGTH)
    studio.at(40)
    assert studio.status("saving") != before


def test_controls_show_the_settings_of_the_step_shown(studio: StudioPage) -> None:
    studio.seek(10 / LENGTH)
    studio.at(10)
    studio.type_into("rank", "60")
    studio.click("step")
    studio.at(11)
    rank = studio.page.locator("#rank input[type=number]")
    assert rank.input_value() == "60"
    studio.seek(5 / LENGTH)
    studio.at(5)
    studio.until_script("document.querySelector('#rank input[type=number]').value === '25'")
    studio.click("restart")
    studio.at(0)
    studio.until_script("document.querySelector('#rank input[type=number]').value === '25'")


def test_changes_while_playing_act_at_once_and_play_goes_on(studio: StudioPage) -> None:
    studio.click("play")
    studio.until_script("Number(document.getElementById('status').dataset.step) >= 8")
    studio.slide("rank", "PageUp")
    studio.until_script("location.search.includes('change=') || document.getElementById('status').dataset.state === 'done'")
    assert studio.status("state") in ("playing", "done")


def test_the_ledger_is_chosen_on_the_page(studio: StudioPage) -> None:
    studio.seek(30 / LENGTH)
    studio.at(30)
    history = studio.memory()
    studio.pick("ledger", "training")
    studio.until_script("document.getElementById('memory-even').textContent.includes('saved bytes')")
    assert studio.memory() != history


def test_another_puzzle_and_a_new_one(studio: StudioPage) -> None:
    first = studio.cells()
    studio.choose("difficulty", "hard")
    studio.until_script("location.search.includes('puzzle=hard-0001')")
    studio.choose("puzzle", "hard · 0003")
    studio.until_script("location.search.includes('puzzle=hard-0003')")
    second = studio.cells()
    assert second != first and studio.step == 0
    studio.choose("difficulty", "easy")
    studio.until_script("location.search.includes('puzzle=easy-0001')")
    studio.click("new-puzzle")
    studio.until_script("location.search.includes('puzzle=generated%3Aeasy%3A')")
    assert studio.cells() not in (first, second)
    assert "easy · new #" in studio.page.locator("#puzzle input").input_value()
    studio.click("step")
    studio.at(1)
