"""The training page as a user meets it: start, moving curves, sliders, pause, reload, resume, the model of the moment, a page that goes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

SLOW = 120_000  # on a busy machine a process needs its time to start


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def server(start_studio: Callable[..., str], runs: Path) -> str:
    return start_studio("--runs", str(runs))


def opened(open_page: Callable[..., Page], url: str, query: str = "", **options: Any) -> Page:
    page = open_page(**options)
    page.goto(f"{url}/train{query}")
    page.wait_for_selector("#train-page[data-ready]")
    return page


def step(page: Page) -> int:
    return int(page.locator("#train-page").get_attribute("data-step") or 0)


def reaches(page: Page, least: int) -> None:
    page.wait_for_function("least => Number(document.getElementById('train-page').dataset.drawn ?? 0) >= least", arg=least, timeout=SLOW)


def is_in(page: Page, *states: str) -> None:
    page.wait_for_selector(", ".join(f'#train-page[data-run="{state}"]' for state in states), timeout=SLOW)


def picture(page: Page, name: str) -> str:
    return str(page.locator(f"#{name}").evaluate("canvas => canvas.toDataURL()"))


def until_redrawn(page: Page, name: str, before: str) -> None:
    page.wait_for_function(f"before => document.getElementById('{name}').toDataURL() !== before", arg=before, timeout=SLOW)


def test_a_run_from_start_to_the_debugger_and_back(open_page: Callable[..., Page], server: str, runs: Path) -> None:
    page = opened(open_page, server)
    expect(page.locator("#train-empty")).to_contain_text("Train a model twice at once")
    expect(page.locator("#train-list-empty")).to_be_visible()
    page.click("#train-start")
    expect(page.locator("#train-pill")).to_have_text("starting")
    reaches(page, 2)
    before = {name: picture(page, name) for name in ("loss-plot", "fidelity-plot", "rank-plot", "bytes-plot")}
    expect(page.locator("#train-sites .memory-row")).to_have_count(11)
    reaches(page, step(page) + 3)
    for name, image in before.items():
        until_redrawn(page, name, image)
    # Sliders act on the next step.
    page.fill("#train-rank-number", "30")
    page.press("#train-rank-number", "Enter")
    page.wait_for_function("window.laserStudio.training.run.notes.length === 1", timeout=SLOW)
    # A pause is a checkpoint.
    page.keyboard.press("Escape")
    page.click("#train-pause")
    is_in(page, "paused")
    at = step(page)
    page.wait_for_timeout(1_500)
    assert step(page) == at
    [run] = [path for path in runs.iterdir() if (path / "run.json").exists()]
    [state] = run.glob("state-*")
    record = json.loads((state / "history.json").read_text())
    assert record["history"]["steps"] == at and record["laser"]["rank"] == "30%"
    # What is shown is what was recorded.
    with page.expect_download() as got:
        page.click("#train-save")
    rows = list(csv.DictReader(io.StringIO(got.value.path().read_text())))
    low = record["history"]["low"]
    assert [float(row["loss.laser"]) for row in rows] == pytest.approx(low["loss.laser"], rel=1e-6) and len(rows) == at
    assert page.locator("#loss-laser").inner_text() == f"{low['loss.laser'][-1]:.3f}"
    gone = 1 - low["bytes.saved"][-1] / low["bytes.full"][-1]
    assert page.locator("#tile-gone").inner_text() == page.locator("#bytes-gone").inner_text() == f"{100 * gone:.1f} %"
    grown = sum(sum(counts) for name, counts in record["history"]["counts"].items() if name.startswith("grow:"))
    assert page.locator("#tile-growth").inner_text() == str(grown)
    # Reload: it is there, and goes on.
    page.reload()
    page.wait_for_selector("#train-page[data-ready]")
    reaches(page, at)
    is_in(page, "paused")
    expect(page.locator("#train-rank-number")).to_have_value("30")
    page.click("#train-resume")
    reaches(page, at + 2)
    # The model of this moment, in a tab of its own; the training goes on meanwhile.
    page.select_option("#train-which", "plain")
    with page.context.expect_page() as tab:
        page.click("#train-debug")
    debugger = tab.value
    debugger.wait_for_function("window.laserStudio?.ready === true", timeout=SLOW)
    assert f"model={run.name}%40" in debugger.url and "-plain" in debugger.url
    assert debugger.locator("#model input").input_value().startswith(f"{run.name}@")
    debugger.click("#step")
    expect(debugger.locator("#status")).to_have_attribute("data-step", "1")
    now = step(page)
    reaches(page, now + 1)
    debugger.close()
    page.click("#train-stop")
    is_in(page, "resting")
    expect(page.locator("#train-resume")).to_be_visible()
    expect(page.locator("#train-list li")).to_have_count(1)


def test_a_page_that_goes_leaves_a_checkpoint_and_others_may_only_look(open_page: Callable[..., Page], server: str) -> None:
    page = opened(open_page, server)
    page.click("#train-list .show")
    is_in(page, "resting")
    at = step(page)
    page.click("#train-resume")
    reaches(page, at + 1)
    other = opened(open_page, server)  # another browser
    is_in(other, "running")
    expect(other.locator("#train-note")).to_contain_text("Another page trains this")
    expect(other.locator("#train-pause")).to_be_hidden()
    expect(other.locator("#train-rank")).to_be_disabled()
    reaches(other, step(other) + 1)
    page.close()
    is_in(other, "resting")  # nobody steers it any more: saved, and its process gone
    later = step(other)
    assert later > at
    expect(other.locator("#train-resume")).to_be_enabled()
    other.click("#train-new")
    expect(other.locator("#train-start")).to_be_enabled()
    away = other.locator("#train-list .away")
    away.click()
    expect(away).to_have_text("delete?")
    away.click()
    expect(other.locator("#train-list-empty")).to_be_visible()


def site_rows(page: Page) -> dict[str, tuple[str, str]]:
    rows = page.locator("#train-sites .memory-row").evaluate_all(
        "rows => rows.map((row) => ['.name', '.how', 'b'].map((part) => row.querySelector(part).textContent))"
    )
    return {name: (how, sizes) for name, how, sizes in rows}


def newest_record(runs: Path) -> dict[str, Any]:
    """Of the run started last."""
    run = max((path for path in runs.iterdir() if (path / "run.json").exists()), key=lambda path: int(path.name.rpartition("-")[2]))
    [state] = run.glob("state-*")
    record: dict[str, Any] = json.loads((state / "history.json").read_text())
    return record


def kilobytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB" if value >= 1e3 else f"{value:.0f} B"


def delete_newest(page: Page) -> None:
    away = page.locator("#train-list .away").first
    away.click()
    away.click()


def test_whole_places_in_four_bits_and_what_a_budget_chose(open_page: Callable[..., Page], server: str, runs: Path) -> None:
    page = opened(open_page, server)
    sliders = [page.locator(f"#train-{name}") for name in ("rank", "min-fidelity", "patience", "growth")]
    # Without bases the rule has no say, and the page says so where its sliders stand.
    expect(page.locator("#train-idle")).to_be_hidden()
    expect(page.locator("#train-products")).to_be_disabled()  # nothing is in few bits
    page.select_option("#train-keeps", "whole")
    expect(page.locator("#train-mode")).to_be_disabled()
    page.select_option("#train-keeps", "blocks")
    page.select_option("#train-storage", "int4")
    expect(page.locator("#train-idle")).to_contain_text("do not count")
    for control in (*sliders, page.locator("#train-on-miss"), page.locator("#train-mode")):
        expect(control).to_be_disabled()
    expect(page.locator("#train-products")).to_be_enabled()
    page.click("#train-start")
    reaches(page, 2)
    page.click("#train-pause")
    is_in(page, "paused")
    record = newest_record(runs)
    assert [record["laser"][name] for name in ("whole", "blocks", "storage", "budget")] == [True, True, "int4", ""]
    shown, low = site_rows(page), record["history"]["low"]
    mixing, gate = "net.layers.0.mlp_t.gate_up_proj", "net.layers.0.mlp.gate_up_proj"
    whole, kept = low[f"full:{mixing}"][-1], low[f"kept:{mixing}"][-1]
    assert shown["L0 mix g·up"] == ("whole · 4 bits", f"{kilobytes(whole)} → {kilobytes(kept)}") and 0 < kept < whole / 3
    assert shown["L0 gate·up"][0] == "made again" and low[f"kept:{gate}"][-1] == 0
    assert shown["L0 down"][0] == "rebuilt"
    expect(page.locator("#sites-none")).to_contain_text("No bases")
    page.click("#train-stop")
    is_in(page, "resting")
    delete_newest(page)
    # A number that no budget can be is refused where it stands, and nothing starts.
    page.select_option("#train-keeps", "budget")
    expect(page.locator("#train-idle")).to_contain_text("The budget finds rank and storage")
    for control in (*sliders, page.locator("#train-storage")):
        expect(control).to_be_disabled()
    page.fill("#train-cosine", "2")
    page.click("#train-start")
    expect(page.locator("#train-problem")).to_have_text("a budget's cosine lies between 0.5 and 0.99999: nothing was started")
    expect(page.locator("#train-list li")).to_have_count(0)
    page.select_option("#train-budget", "bytes")
    expect(page.locator("#train-cosine")).to_be_hidden()
    page.select_option("#train-budget", "cosine")
    page.fill("#train-cosine", "0.985")
    page.click("#train-start")
    expect(page.locator("#train-choice")).to_contain_text("measured after step 3; until then", timeout=SLOW)
    page.wait_for_function("Number(document.getElementById('train-page').dataset.step) >= 5", timeout=5 * SLOW)  # some 150 steps' work
    page.click("#train-pause")
    is_in(page, "paused")
    record = newest_record(runs)
    assert record["laser"]["budget"] == "cosine=0.985"
    [[step, note]] = record["history"]["notes"]
    choice = note["budget"]["choice"]
    assert step == 4 and choice["mean"] >= 0.985
    said = f"cosine ≥ 0.985: held, cosine {choice['mean']:.4f} (worst {choice['worst']:.4f}) · measured after step 3"
    expect(page.locator("#train-choice")).to_have_text(said)
    shown, low = site_rows(page), record["history"]["low"]
    labels = {site["name"]: site["label"] for site in page.evaluate("window.laserStudio.training.run.sites")}
    bits = {"exact": "", "int8": " · 8 bits", "int4": " · 4 bits"}
    for name, one in choice["options"].items():
        how = f"rank {low[f'rank:{name}'][-1]:.0f}" if one["rank"] is not None else "whole"
        full = one["rank"] is None and one["storage"] == "exact"
        again = one["storage"] == "recomputed"
        assert shown[labels[name]][0] == ("made again" if again else "in full" if full else how + bits[one["storage"]]), name
        assert not again or low[f"kept:{name}"][-1] == 0, name
    assert any("bits" in how for how, _ in shown.values())
    made_again = [labels[name] for name, one in choice["options"].items() if one["storage"] == "recomputed"]
    assert "L0 gate·up" in made_again
    page.locator("#train-sites .memory-row", has_text=made_again[0]).first.hover()
    expect(page.locator("#tip")).to_contain_text("made again")
    expect(page.locator("#tip")).to_contain_text("chosen by the budget: made again in backward; by itself it frees")
    page.reload()
    page.wait_for_selector("#train-page[data-ready]")
    expect(page.locator("#train-choice")).to_have_text(said)
    expect(page.locator("#train-keeps")).to_have_value("budget")
    expect(page.locator("#train-cosine")).to_have_value("0.985")
    expect(page.locator("#train-keeps")).to_be_disabled()
    page.click("#train-stop")
    is_in(page, "resting")
    delete_newest(page)
    expect(page.locator("#train-list-empty")).to_be_visible()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080), (390, 844)])
def test_nothing_overflows_keys_and_theme_work(open_page: Callable[..., Page], server: str, width: int, height: int) -> None:
    page = opened(open_page, server, viewport={"width": width, "height": height})

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width >= 1280:
            assert page.evaluate("document.documentElement.scrollHeight") <= height
        heads = page.locator("#train-page h2, .tile span, .train-slider label")
        assert heads.evaluate_all("all => all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)") == []

    fits()
    if width == 1280:
        page.click("#train-start")
        reaches(page, 2)
        page.mouse.move(5, 300)
        page.keyboard.press("Space")
        is_in(page, "paused")
        page.locator("#loss-plot").focus()
        page.keyboard.press("End")
        expect(page.locator("#tip")).to_contain_text("with LASER")
        page.keyboard.press("Tab")
        page.locator("body").press("2")
        expect(page.locator("#train-sites .memory-row.selected .name")).to_have_text("L0 gate·up")
    else:
        page.click("#train-list .show")
        reaches(page, 2)
    fits()
    before = page.evaluate("document.documentElement.dataset.theme")
    drawn = picture(page, "loss-plot")
    page.click("#train-theme")
    page.wait_for_function("before => document.documentElement.dataset.theme !== before", arg=before)
    until_redrawn(page, "loss-plot", drawn)
