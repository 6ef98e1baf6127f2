"""The large view of a plot: drawn by Plotly from the studio's own server, with the engine's numbers, and exported as it is shown."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from laser_studio.assets import asset_path
from laser_studio.debugger import Frame, Measures, Session
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import load_puzzles
from laser_studio.trm import load_checkpoint
from tests.browser.harness import PageWatch
from tests.browser.studio_page import StudioPage

LENGTH, STEP = 120, 50
QUERY = f"?puzzle=hard-0003&rank=20%25&min_fidelity=0.99&patience=2&functional=1&best=1&step={STEP}"
# Two processes may sum in another order: figures agree to this, while one page's own figures agree to the last bit.
NEAR = 2e-4
DATA = "() => document.querySelector('#zoom .chart').data"


@pytest.fixture(scope="module")
def session() -> Session:
    """The run of `QUERY`, computed in this process."""
    puzzle = next(puzzle for puzzle in load_puzzles("sudoku-6x6") if puzzle.name == "hard-0003")
    model = load_checkpoint(asset_path("checkpoints", "sudoku-6x6"), device="cpu")
    policy = LaserPolicy(rank="20%", min_fidelity=0.99, patience=2)
    session = Session(model, puzzle, policy=policy, measures=Measures(functional=True, best=True))
    session.seek(STEP)
    return session


@pytest.fixture(scope="module")
def resting(browser: Browser, studio_server: str) -> Iterator[StudioPage]:
    """One watched page at `STEP` for all tests that only look."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    watch = PageWatch(page)
    studio = StudioPage(page)
    studio.goto(studio_server, QUERY)
    studio.at(STEP)
    yield studio
    context.close()
    watch.check()


@pytest.fixture
def studio(resting: StudioPage) -> Iterator[StudioPage]:
    """The page of `resting`, its dialog closed before and after."""
    yield resting
    if resting.page.locator("#zoom").is_visible():
        resting.page.click("#zoom .close")


def opener(studio: StudioPage, card: str = "fidelity-panel") -> Any:
    return studio.page.locator(f"#{card} .zoom-open")


def enlarge(studio: StudioPage, card: str = "fidelity-panel", plot: str | None = None, state: str = "ready") -> None:
    """Open the card's large view, go to a plot of it, and wait until it is drawn."""
    opener(studio, card).click()
    if plot is not None:
        studio.page.select_option("#zoom-plot", plot)
    until(studio, state)


def until(studio: StudioPage, state: str) -> None:
    """Wait for a state of the dialog; the first time, the library must be fetched and read."""
    expect(studio.page.locator("#zoom")).to_have_attribute("data-state", state, timeout=30_000)


def kept(studio: StudioPage, act: str) -> tuple[str, bytes]:
    """Name and bytes of the file that a button of the dialog gives."""
    with studio.page.expect_download() as got:
        studio.page.click(f"#zoom [data-act={act}]")
    return got.value.suggested_filename, Path(got.value.path()).read_bytes()


def table(studio: StudioPage, act: str = "csv") -> list[dict[str, str]]:
    text = kept(studio, act)[1].decode("ascii")
    assert text.endswith("\r\n") and "\n" not in text.replace("\r\n", "")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def same(text: str, value: float | None) -> bool:
    return text == "" if value is None else math.isclose(float(text), value, abs_tol=NEAR, rel_tol=NEAR)


def address(frame: Frame) -> tuple[str, ...]:
    return tuple(str(part) for part in (frame.index, frame.s, frame.h, frame.l))


def test_the_large_view_shows_every_site_with_the_engines_numbers(studio: StudioPage, session: Session) -> None:
    page = studio.page
    assert page.evaluate("() => !window.Plotly && !document.querySelector('script[src*=plotly]')")  # not before it is needed
    enlarge(studio)
    lines = [trace for trace in page.evaluate(DATA) if trace["mode"] == "lines"]
    assert [trace["name"] for trace in lines] == list(studio.memory())
    assert page.locator("#zoom .chart svg .scatterlayer path.js-line").count() == len(lines) == len(session.sites)
    for trace, name in zip(lines, session.frames[1].sites, strict=True):
        assert trace["x"] == list(range(1, STEP + 1))
        assert trace["customdata"] == pytest.approx([frame.sites[name].fidelity for frame in session.frames[1:]], abs=NEAR)
        nines = [min(4, -math.log10(max(1 - value, 1e-9))) for value in trace["customdata"]]  # what the scale counts
        assert trace["y"] == pytest.approx(nines, rel=1e-12)  # two libraries' logarithms may differ in the last bit
    marked = sum(len(trace["x"]) for trace in page.evaluate(DATA) if trace["mode"] == "markers")
    assert marked == sum(event.kind in ("reset", "grew") for frame in session.frames for event in frame.events) > 0
    assert page.locator("#zoom .chart svg").first.bounding_box()["height"] > 300  # type: ignore[index]
    title = page.locator("#zoom-about").inner_text()
    assert "hard-0003" in title and f"step {STEP}" in title


def test_nothing_in_the_view_leads_to_another_host(studio: StudioPage) -> None:
    enlarge(studio)
    names = studio.page.locator("#zoom .modebar-btn").evaluate_all("nodes => nodes.map((node) => node.dataset.title)")
    assert len(names) == 5 and not re.search(r"loud|hart|http|lotly", " ".join(names))
    assert studio.page.locator("#zoom a[href]").count() == 0
    sources = studio.page.locator("script[src*=plotly]").evaluate_all("nodes => nodes.map((node) => new URL(node.src).pathname)")
    assert sources == ["/studio/plotly.min.js"]


@pytest.mark.parametrize(
    ("card", "plot", "unit", "value"),
    [
        ("fidelity-panel", "fidelity", "fidelity (share of energy)", lambda site: site.fidelity),
        ("fidelity-panel", "centred", "centred fidelity (share of energy without the mean)", lambda site: site.centred),
        ("fidelity-panel", "functional", "functional fidelity (exp(-KL in nats per cell))", lambda site: site.functional),
        ("basis-panel", "rank", "rank (directions)", lambda site: site.rank),
        ("basis-panel", "turn", "largest principal angle (degrees)", lambda site: site.angles[0] if site.angles else None),
    ],
)
def test_the_csv_holds_what_is_drawn_in_full(
    studio: StudioPage, session: Session, card: str, plot: str, unit: str, value: Callable[[Any], float | None]
) -> None:
    enlarge(studio, card, plot)
    rows = table(studio)
    assert [(row["step"], row["s"], row["h"], row["l"]) for row in rows] == [address(frame) for frame in session.frames[1:]]
    drawn = [trace["customdata"] for trace in studio.page.evaluate(DATA) if "lines" in trace["mode"]]
    for name, line in zip(session.frames[1].sites, drawn, strict=True):
        column = [row[f"{name} {unit}"] for row in rows]
        assert all(same(text, value(frame.sites[name])) for text, frame in zip(column, session.frames[1:], strict=True))
        # to the last bit what is drawn; a rank of 0 means "no basis yet" and is left out of the picture
        assert [float(text) if text and text != "0" else None for text in column] == line


def test_all_data_is_one_line_per_site_and_step(studio: StudioPage, session: Session) -> None:
    enlarge(studio)
    rows = table(studio, "all")
    expected = [(frame, name) for frame in session.frames[1:] for name in frame.sites]
    assert len(rows) == len(expected) == STEP * len(session.sites)
    for row, (frame, name) in zip(rows, expected, strict=True):
        site = frame.sites[name]
        assert (row["step"], row["s"], row["h"], row["l"], row["site"]) == (*address(frame), name)
        assert (row["rank (directions)"], row["action"]) == (str(site.rank), site.action)
        assert same(row["fidelity (share of energy)"], site.fidelity)
        assert same(row["centred (share of energy without the mean)"], site.centred)
        assert same(row["functional (exp(-KL in nats per cell))"], site.functional)
        assert same(row["turn (degrees)"], site.angles[0] if site.angles else None)


def test_memory_by_site_is_the_ledgers_bytes(studio: StudioPage, session: Session) -> None:
    enlarge(studio, "memory-panel", "memory")
    rows = table(studio)
    assert len(rows) == 2 * len(session.sites)
    for row in rows:
        line = getattr(session.frame.sites[row["site"]], row["ledger"])
        assert [int(row[f"{part} (bytes)"]) for part in ("full", "stored", "bases")] == [
            line.full_bytes,
            line.stored_bytes,
            line.basis_bytes,
        ]
    drawn = {trace["name"]: trace["y"] for trace in studio.page.evaluate(DATA)}
    shown = [row for row in rows if row["ledger"] == "history"]
    for name, part in (("full", "full"), ("coefficients", "stored"), ("bases", "bases")):
        assert drawn[name] == [int(row[f"{part} (bytes)"]) for row in shown]


def test_spectrum_latents_and_memory_over_time_are_the_engines(studio: StudioPage, session: Session) -> None:
    enlarge(studio, "basis-panel", "spectrum")
    drawn = studio.page.evaluate(DATA)[0]
    rows = table(studio)
    name = rows[0]["site"]
    shares = session.spectra(name, 1, STEP + 1)
    assert len(rows) == len(shares) == len(drawn["x"]) and any(shares)
    for t, (row, expected) in enumerate(zip(rows, shares, strict=True)):
        kept = [float(text) for key, text in row.items() if key.startswith("component") and text]
        assert kept == pytest.approx(list(expected or ()), abs=NEAR)
        assert [line[t] for line in drawn["customdata"] if line[t] is not None] == kept
    studio.page.select_option("#zoom-plot", "latents")
    until(studio, "ready")
    rows = table(studio)
    assert [int(row["step"]) for row in rows] == [frame.index for frame in session.frames]
    for row, frame in zip(rows, session.frames, strict=True):
        place = [float(row[f"{state} (mean over cells)"]) for state in ("z_H x", "z_H y", "z_L x", "z_L y")]
        assert place == pytest.approx(frame.latent, abs=10 * NEAR)
    studio.page.select_option("#zoom-plot", "kept")
    until(studio, "ready")
    for row, frame in zip(table(studio), session.frames[1:], strict=True):
        ledger = frame.history
        assert (int(row["full (bytes)"]), int(row["kept (bytes)"])) == (ledger.full_bytes, ledger.stored_bytes + ledger.basis_bytes)


def test_another_site_is_chosen_in_the_view_and_on_the_page(studio: StudioPage, session: Session) -> None:
    page = studio.page
    first = page.locator("#basis-title").inner_text()
    enlarge(studio, "basis-panel", "spectrum")
    name = "layers.1.self_attn.o_proj"
    page.select_option("#zoom-site", label="L1 o")
    expect(page.locator("#zoom-about")).to_contain_text("L1 o")
    until(studio, "ready")
    expect(page.locator("#basis-title")).to_have_text("Basis · L1 o")
    shares = session.spectra(name, 1, STEP + 1)
    drawn = page.evaluate(DATA)[0]["customdata"]
    assert [line[-1] for line in drawn if line[-1] is not None] == pytest.approx(list(shares[-1] or ()), abs=NEAR)
    rows = table(studio)
    assert {row["site"] for row in rows} == {name} and len(rows) == STEP
    page.select_option("#zoom-plot", "fidelity")
    until(studio, "ready")
    strong = [trace["name"] for trace in page.evaluate(DATA) if trace["mode"] == "lines" and trace["line"]["width"] > 2]
    assert strong == ["L1 o"]
    page.select_option("#zoom-site", label=first.removeprefix("Basis · "))


@pytest.mark.parametrize(
    ("card", "tab", "title"),
    [
        ("memory-panel", "tab-halting", "Halting"),
        ("memory-panel", "tab-latents", "Latent path"),
        ("memory-panel", "tab-memory", "Memory by site"),
        ("basis-panel", "tab-angles", "Turn at each refresh"),
        ("basis-panel", "tab-spectrum", "Spectrum waterfall"),
        ("deck", None, "Timeline lanes"),
    ],
)
def test_a_card_opens_the_plot_it_shows(studio: StudioPage, card: str, tab: str | None, title: str) -> None:
    if tab is not None:
        studio.click(tab)
    enlarge(studio, card)
    assert studio.page.locator("#zoom-title").inner_text() == title


def test_pictures_are_pictures_of_the_plot(studio: StudioPage) -> None:
    enlarge(studio)
    name, data = kept(studio, "png")
    assert name == f"laser-studio_sudoku-6x6_hard-0003_fidelity_t{STEP}.png"
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG" and image.size == (2400, 1360)
        colours = image.convert("RGB").getcolors(1 << 20)
    assert colours is not None and len(colours) > 100
    assert 0.5 < max(count for count, _ in colours) / (2400 * 1360) < 0.99  # paper with something on it
    name, data = kept(studio, "svg")
    assert name.endswith(f"_fidelity_t{STEP}.svg")
    root = ElementTree.fromstring(data)
    assert root.tag.endswith("svg")
    layers = [node for node in root.iter() if "scatterlayer" in node.get("class", "")]
    lines = [node for layer in layers for node in layer.iter() if node.get("class") == "js-line"]
    words = " ".join(root.itertext())
    assert len(lines) == len(studio.memory()) and all(label in words for label in studio.memory())
    assert "Fidelity by site" in words and "hard-0003" in words and not re.search(rb'href="http', data)


def test_every_plot_offered_can_be_drawn_and_exported(studio: StudioPage) -> None:
    enlarge(studio, "basis-panel")
    offered = studio.page.locator("#zoom-plot option").evaluate_all("nodes => nodes.map((node) => node.value)")
    assert set(offered) == {
        "fidelity", "centred", "functional", "kinds", "rank", "turn", "angles", "spectrum", "memory", "kept", "halting", "latents",
        "timeline", "effect",
    }  # fmt: skip
    titles = set()
    for plot in offered:
        studio.page.select_option("#zoom-plot", plot)
        until(studio, "ready")
        titles.add(studio.page.locator("#zoom-title").inner_text())
        assert studio.page.locator("#zoom .chart svg .subplot").count() > 0
        rows = table(studio)
        assert rows and any(value for row in rows for name, value in row.items() if name not in ("step", "s", "h", "l", "site")), plot
    assert len(titles) == len(offered)


def test_keys_stay_in_the_dialog_and_escape_gives_the_focus_back(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, QUERY)
    studio.at(STEP)
    page = studio.page
    opener(studio).focus()
    page.keyboard.press("Enter")
    until(studio, "ready")
    for key in ("ArrowLeft", "r", "?", "Tab", "Tab", "ArrowRight", "Escape"):
        assert page.evaluate("() => document.getElementById('zoom').contains(document.activeElement)"), key
        page.keyboard.press(key)
    expect(page.locator("#zoom")).not_to_be_visible()
    assert page.evaluate("() => document.activeElement.matches('#fidelity-panel .zoom-open')")
    assert studio.step == STEP and not page.locator("#help").is_visible()
    page.keyboard.press("ArrowRight")  # and is the page's again
    studio.at(STEP + 1)


def test_the_picture_rests_while_the_run_goes_on(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, QUERY)
    studio.at(STEP)
    studio.click("play")
    studio.until_script(f"Number(document.getElementById('status').dataset.step) > {STEP + 2}")
    enlarge(studio)
    shown = studio.page.locator("#zoom-about").inner_text()
    first = int(re.search(r"picture of step (\d+)", shown)[1])  # type: ignore[index]
    refresh = studio.page.locator("#zoom [data-act=refresh]")
    expect(refresh).to_have_class("fresh")
    expect(studio.page.locator("#zoom-about")).to_contain_text(f"picture of step {first}, the run is at")
    assert studio.page.evaluate(DATA)[0]["x"][-1] == first
    refresh.click()
    later = int(re.search(r"picture of step (\d+)", studio.page.locator("#zoom-about").inner_text())[1])  # type: ignore[index]
    assert later > first
    studio.until_script("last => document.querySelector('#zoom .chart').data[0].x.at(-1) === last", later)


def test_what_was_zoomed_into_stays_through_a_refresh_and_can_be_undone(studio: StudioPage) -> None:
    enlarge(studio, "fidelity-panel", "halting")
    ranges = "() => document.querySelector('#zoom .chart')._fullLayout.xaxis.range"
    whole = studio.page.evaluate(ranges)
    box = studio.page.locator("#zoom .chart .nsewdrag").first.bounding_box()
    assert box is not None
    studio.page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    studio.page.mouse.down()
    studio.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
    studio.page.mouse.up()
    studio.until_script("() => document.querySelector('#zoom .chart')._fullLayout.xaxis.range[1] < 100")
    near = studio.page.evaluate(ranges)
    assert near[0] == pytest.approx(0.2 * LENGTH, abs=2) and near[1] == pytest.approx(0.4 * LENGTH, abs=2)
    studio.page.click("#zoom [data-act=refresh]")
    until(studio, "ready")
    assert studio.page.evaluate(ranges) == near
    studio.page.click("#zoom [data-act=reset]")
    until(studio, "ready")
    assert studio.page.evaluate(ranges) == whole


def test_before_the_first_step_it_says_so(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    enlarge(studio, state="empty")
    expect(studio.page.locator("#zoom .message")).to_contain_text("Nothing recorded yet")
    assert studio.page.evaluate("() => !window.Plotly")


def test_a_single_step_can_be_seen(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    studio.click("step")
    studio.at(1)
    enlarge(studio)
    assert studio.page.locator("#zoom .chart .scatterlayer path.point").count() == len(studio.memory())


def test_without_the_library_it_says_why_and_the_data_can_still_be_had(browser: Browser, studio_server: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})  # not watched: a failed request is what it is about
    page = context.new_page()
    page.route("**/plotly.min.js", lambda route: route.abort())
    studio = StudioPage(page)
    studio.goto(studio_server, QUERY)
    studio.at(STEP)
    enlarge(studio, state="error")
    expect(page.locator("#zoom .message")).to_contain_text("could not be fetched")
    assert len(table(studio)) == STEP and page.locator("#zoom [data-act=png]").is_disabled()
    page.unroute("**/plotly.min.js")
    page.get_by_role("button", name="Try again").click()
    until(studio, "ready")
    context.close()


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_it_fits_the_screen(open_page: Callable[..., Page], studio_server: str, size: tuple[int, int]) -> None:
    width, height = size
    studio = StudioPage.opened(open_page, studio_server, QUERY, viewport={"width": width, "height": height})
    studio.at(STEP)
    opener(studio).scroll_into_view_if_needed()
    enlarge(studio)
    for selector in ("#zoom", "#zoom .chart svg.main-svg >> nth=0", "#zoom .close", "#zoom [data-act=all]"):
        box = studio.page.locator(selector).bounding_box()
        assert box is not None and box["width"] > 20 and box["height"] > 20, selector
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= height, selector
    assert studio.page.evaluate("() => { const it = document.getElementById('zoom'); return it.scrollWidth <= it.clientWidth; }")
