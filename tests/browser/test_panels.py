"""The panels: tabs, one selection for all, presets, single sites, measures, batch, depth, reload, and a view as Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from laser_studio.studio.presets import PRESETS
from tests.browser.studio_page import StudioPage

LENGTH = 120
SITE = "layers.1.mlp.gate_up_proj"
QKV = "layers.0.self_attn.qkv_proj"


@pytest.fixture
def studio(open_page: Callable[..., Page], studio_server: str) -> StudioPage:
    return StudioPage.opened(open_page, studio_server)


def seek(studio: StudioPage, step: int) -> None:
    studio.seek(step / LENGTH)
    studio.at(step)


def settings(studio: StudioPage, name: str, value: str) -> None:
    """Wait until the address says so: it names what the engine uses, not what the control shows."""
    studio.until_script("([name, value]) => new URLSearchParams(location.search).get(name) === value", [name, value])


# Tabs


def test_tabs_open_by_click_and_key_and_are_remembered(studio: StudioPage) -> None:
    page = studio.page
    for tab, body in (("halting", "halting-body"), ("latents", "latents-body"), ("memory", "memory-body"), ("rank", "rank-body")):
        studio.tab(tab)
        expect(page.locator(f"#tab-{tab}")).to_have_attribute("aria-selected", "true")
        expect(page.locator(f"#{body}")).to_be_visible()
    expect(page.locator("#spectrum-body")).to_be_hidden()
    assert page.locator('#basis-tabs [aria-selected="true"]').count() == 1
    page.locator("#tab-rank").press("ArrowRight")  # round to the first
    expect(page.locator("#spectrum-body")).to_be_visible()
    page.locator("#tab-spectrum").press("End")
    page.locator("#tab-rank").press("ArrowLeft")
    expect(page.locator("#angles-body")).to_be_visible()
    assert studio.step == 0  # the arrows were the tabs', not the transport's
    page.locator("#brand").click()
    page.keyboard.press("m")
    expect(page.locator("#halting-body")).to_be_visible()
    page.reload()
    page.wait_for_function("window.laserStudio?.ready === true")
    expect(page.locator("#angles-body")).to_be_visible()
    expect(page.locator("#halting-body")).to_be_visible()
    assert page.locator("#memory-panel, #basis-panel").count() == 2


def test_the_page_keeps_its_shape_whatever_is_open(studio: StudioPage) -> None:
    places = """() => ['memory-panel', 'basis-panel', 'fidelity-plot', 'board', 'timeline']
        .map((id) => document.getElementById(id).getBoundingClientRect()).map((b) => [b.x, b.y, b.width, b.height])"""
    before = studio.page.evaluate(places)
    seek(studio, 25)
    inside = """() => ['memory-panel', 'basis-panel', 'fidelity-panel', 'tracker', 'transport'].flatMap((id) => {
        const card = document.getElementById(id), box = card.getBoundingClientRect();
        return [...card.querySelectorAll('*')].filter((e) => e.offsetParent && !e.closest('#more'))
            .filter((e) => getComputedStyle(e).position !== 'absolute')
            .filter((e) => e.getBoundingClientRect().right > box.right + 0.5).map((e) => e.id || e.className || e.textContent);
    })"""
    for tab in ("halting", "latents", "memory", "angles", "rank", "spectrum"):
        studio.tab(tab)
        assert studio.page.evaluate(places) == before
        assert studio.page.evaluate(inside) == []
        assert studio.page.evaluate("document.documentElement.scrollHeight <= innerHeight")


# One selection


@pytest.mark.parametrize("where", ["map", "memory", "key"])
def test_every_panel_follows_the_selected_site(studio: StudioPage, where: str) -> None:
    page = studio.page
    seek(studio, 20)
    studio.tab("rank")
    if where == "map":
        page.click(f'#site-map [data-site="{SITE}"]')
    elif where == "memory":
        page.locator("#memory-rows .memory-row", has_text="L1 gate·up").click()
    else:
        page.locator("#brand").click()
        page.keyboard.press("8")
        page.keyboard.press("[")
    expect(page.locator("#basis-title")).to_have_text("Basis · L1 gate·up")
    expect(page.locator(f'#site-map [data-site="{SITE}"]')).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#memory-rows .memory-row.selected .name")).to_have_text("L1 gate·up")
    expect(page.locator("#override-title")).to_have_text("L1 gate·up")
    studio.tab("spectrum")
    studio.until_script("document.getElementById('spectrum-plot').ariaLabel.startsWith('Spectrum of L1 gate·up at step 20: the first of')")
    assert "of 128" in studio.text("basis-rank")


def test_the_spectrum_says_its_values_where_it_is_pointed_at(studio: StudioPage) -> None:
    page = studio.page
    seek(studio, 60)
    studio.until_script("document.getElementById('spectrum-plot').ariaLabel.includes('components holds')")
    box = page.locator("#spectrum-plot").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 14)
    expect(page.locator("#tip")).to_contain_text("component")
    expect(page.locator("#tip")).to_contain_text("share of energy")
    expect(page.locator("#tip")).to_contain_text("%")


# Settings


def test_presets_and_the_way_back(studio: StudioPage) -> None:
    page = studio.page
    assert page.locator("#preset").input_value() == "default"
    for name, (_, tracker) in PRESETS.items():
        page.select_option("#preset", name)
        settings(studio, "rank", f"{tracker.rank:g}%")
        studio.until_script("rank => document.querySelector('#rank input[type=number]').value === rank", f"{tracker.rank:g}")
        studio.until_script("name => document.getElementById('preset').value === name", name)
    page.select_option("#preset", "aggressive")
    studio.type_into("patience", "9")
    studio.until_script("document.getElementById('preset').value === 'custom'")
    page.click("#defaults")
    studio.until_script("document.getElementById('preset').value === 'default'")
    assert page.locator("#defaults").is_disabled()


def test_the_rank_line_says_what_the_slider_means(studio: StudioPage) -> None:
    assert studio.text("rank-note") == "the first bases come with the first refresh"
    seek(studio, 6)
    assert studio.text("rank-note") == "sites at k 32–128, none has grown"
    studio.type_into("min-fidelity", "1")
    seek(studio, 20)
    ranks = [int(text.removeprefix("k ")) for text in studio.page.locator("#site-map .site span:last-child").all_inner_texts()]
    assert studio.text("rank-note").startswith(f"sites now at k {min(ranks)}–{max(ranks)}; moving it takes all back")


def test_the_rule_reads_another_fidelity_and_the_mark_follows(studio: StudioPage) -> None:
    marked = "[...document.querySelectorAll('#kinds .triggers input')].map((input) => input.value)"
    assert studio.page.evaluate(marked) == ["energy"]
    studio.pick("measure", "centred")
    settings(studio, "measure", "centred")
    assert studio.page.evaluate(marked) == ["centred"]


def test_kinds_of_fidelity_differ_on_the_map(studio: StudioPage) -> None:
    seek(studio, 22)
    energy = studio.site(QKV)[1]
    studio.page.locator("#kinds input[value=centred]").check()
    studio.until_script("document.getElementById('scale-name').textContent.includes('centred')")
    assert studio.site(QKV)[1] != energy and float(studio.site(QKV)[1]) < 1


def test_a_site_has_settings_of_its_own_and_gives_them_back(studio: StudioPage) -> None:
    page = studio.page
    page.click(f'#site-map [data-site="{QKV}"]')
    studio.tab("rank")
    page.fill("#site-rank", "50")
    page.locator("#site-rank").press("Enter")
    settings(studio, "site", f"{QKV}~rank=50%")
    page.click(f'#site-map [data-site="{SITE}"]')
    expect(page.locator("#site-rank")).to_have_value("")
    page.locator("#site-tracked").uncheck()
    studio.until_script("new URLSearchParams(location.search).getAll('site').length === 2")
    seek(studio, 8)
    assert studio.site(QKV)[-1] == "k 64"
    assert studio.site(SITE)[1] == "off"
    seek(studio, 0)
    page.click("#site-reset")
    studio.until_script("new URLSearchParams(location.search).getAll('site').length === 1")
    page.click(f'#site-map [data-site="{QKV}"]')
    page.click("#site-reset")
    studio.until_script("!location.search.includes('site=')")
    seek(studio, 8)
    assert studio.site(QKV)[-1] == "k 32" and studio.site(SITE)[-1].startswith("k ")


# What is measured when asked


def test_measures_are_switched_on_where_they_are_missing(studio: StudioPage) -> None:
    page = studio.page
    fits = "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.getElementById('measures'))"
    assert page.evaluate(fits)
    assert page.locator("#ask-functional").is_visible() and not page.locator("#m-kl").is_visible()
    for name in ("functional", "gradient", "best"):
        page.click(f"#ask-{name}")
        settings(studio, name, "1")
    seek(studio, 20)
    for identifier in ("m-energy", "m-centred", "m-functional", "m-flips", "m-kl", "m-gradient"):
        assert studio.text(identifier) not in ("", "–"), identifier
    assert page.evaluate(fits)
    assert studio.text("basis-gap").endswith("%")
    studio.tab("angles")
    expect(page.locator("#best-key")).to_be_visible()
    page.click("#more-open")
    page.locator("#option-gradient").uncheck()
    studio.until_script("!location.search.includes('gradient=1')")
    expect(page.locator("#ask-gradient")).to_be_visible()


def test_a_batch_opens_a_new_run_and_counts_the_solved(studio: StudioPage) -> None:
    seek(studio, 3)
    studio.page.select_option("#batch", "4")
    settings(studio, "batch", "4")
    studio.at(0)
    expect(studio.page.locator("#batch")).to_have_value("4")
    seek(studio, 10)
    assert "of 4 solved" in studio.text("board-batch")


def test_a_run_goes_on_past_the_trained_depth_by_a_switch(studio: StudioPage) -> None:
    studio.play_to_the_end()
    assert studio.page.locator("#timeline").get_attribute("aria-valuemax") == str(LENGTH)
    studio.page.locator("#option-beyond").check()
    settings(studio, "beyond", "1")
    studio.until("state", "paused")
    assert int(studio.page.locator("#timeline").get_attribute("aria-valuemax") or 0) > LENGTH
    studio.click("step")
    studio.at(LENGTH + 1)
    assert studio.text("board-step") == f"step {LENGTH + 1} · 1 past {LENGTH}"
    assert "past 8" in studio.text("address")


# Leaving and coming back


def test_a_reload_keeps_the_run(studio: StudioPage) -> None:
    page = studio.page
    seek(studio, 33)
    page.click(f'#site-map [data-site="{SITE}"]')
    studio.until_script("new URLSearchParams(location.search).get('step') === '33'")
    events = studio.events()  # with their wall times, which a run that was computed anew would not repeat
    page.reload()
    page.wait_for_function("window.laserStudio?.ready === true")
    studio.at(33)
    assert studio.events() == events
    expect(page.locator("#basis-title")).to_have_text("Basis · L1 gate·up")
    studio.click("step")
    studio.at(34)


def test_a_doubled_tab_gets_a_run_of_its_own(studio: StudioPage) -> None:
    seek(studio, 12)
    studio.until_script("new URLSearchParams(location.search).get('step') === '12'")
    assert studio.page.evaluate("sessionStorage.getItem('laser-studio-left')") is None


def test_the_view_as_python_runs(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, "?rank=20%25", permissions=["clipboard-read", "clipboard-write"])
    seek(studio, 7)
    studio.click("copy-python")
    expect(studio.page.locator("#notice")).to_contain_text("lines of Python copied")
    text = studio.page.evaluate("navigator.clipboard.readText()")
    names: dict[str, object] = {}
    exec(compile(text, "view.py", "exec"), names)
    session = names["session"]
    assert session.frame.index == 7  # type: ignore[attr-defined]
    assert f"{session.frame.mean_fidelity:.3f}" == f"{float(studio.text('tile-fidelity')):.3f}"  # type: ignore[attr-defined]
