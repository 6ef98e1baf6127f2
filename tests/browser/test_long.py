"""Very long runs in the page: what it holds stays bounded, and what it shows of what it holds is true."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, Route, expect

from laser_studio.assets import asset_path
from tests.browser.studio_page import StudioPage

LONG = 50_000
NEWEST = 2_048  # steps of which the page holds every figure, at least


# What holds the figures, by itself

TRY = """([sources, length, seed]) => {
  const { Column, Samples, Marks } = new Function(`const NONE = "–"; ${sources} return { Column, Samples, Marks };`)();
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const wrong = [], held = {};
  const check = (what, found, wanted) => { if (found !== wanted && wrong.length < 5) wrong.push(`${what}: ${found}, not ${wanted}`); };
  const column = new Column(), raw = [];
  // Figures with gaps, and at first none at all.
  const take = () => {
    raw[column.length] = random() < 0.3 || column.length < 30 ? null : random();
    column.push(raw[column.length]);
  };
  const range = (from, to) => {
    const figures = raw.slice(from, to).filter((value) => value !== null);
    return [figures.reduce((low, one) => Math.min(low, one), Infinity), figures.reduce((high, one) => Math.max(high, one), -Infinity)];
  };

  const compare = () => {
    const { length } = column;
    for (let n = 0; n < 200; n++) {
      const from = Math.floor(random() * length), to = from + 1 + Math.floor(random() * (length - from));
      let low = Infinity, high = -Infinity, reached = -1, ordered = true;
      column.extremes(from, to, (first, last, p, q) => {
        [low, high] = [Math.min(low, p), Math.max(high, q)];
        ordered &&= reached < first && first <= last;
        reached = last;
      });
      const [least, most] = range(column.block(from).from, column.block(to - 1).to + 1); // whole blocks
      check(`lowest of ${from} to ${to}, length ${length}`, low, least);
      check(`highest of ${from} to ${to}, length ${length}`, high, most);
      check(`pieces of ${from} to ${to} in order, length ${length}`, ordered, true);
    }
    for (let t = 0; t < length; t += 3) {
      const { from, to } = column.block(t), span = column.span(t), [least, most] = range(from, to + 1);
      check(`figure of ${t}, length ${length}`, column.at(t), from === to ? raw[t] : null);
      const known = span ? `${span.from} ${span.to} ${span.low} ${span.high}` : "none";
      check(`span of ${t}, length ${length}`, known, least <= most ? `${from} ${to} ${least} ${most}` : "none");
      check(`block of ${t}, length ${length}`, from <= t && t <= to && (to - from < column.size), true);
    }
  };

  while (column.length < 30) take();
  held["before the first figure"] = column.held;
  while (column.length < length) {
    take();
    if (column.length % 4999 === 0 || column.length === 4097) compare();
    if (column.length === length / 5) held["a fifth of the run"] = column.held;
  }
  compare();
  held["the run"] = column.held;
  held["blocks"] = Math.ceil(column.length / column.size);
  for (let t = column.length - 2048; t < column.length; t++) check(`newest, ${t}`, column.at(t), raw[t]);

  // Changes of settings, among the newest steps and far back, where steps before the change are wanted once more.
  const wanted = [];
  for (const back of [1, 500, 1900, 9000, 3, 20000, 0, 4097]) {
    const from = column.length - back, end = column.cut(from);
    wanted.push(from - end);
    raw.length = end;
    check(`length after a cut ${back} back`, column.length, end);
    compare();
    while (column.length < from) take();
    compare();
    for (let t = end; t < from; t++) check(`${t} after a cut ${back} back`, column.at(t), raw[t]);
    for (let n = 0; n < 5000; n++) take(); // so that the steps around the cut are held in blocks
    compare();
  }
  check("steps wanted again", wanted.map((n) => (n === 0 ? "none" : n >= 2048 && n < 2048 + column.size ? "the newest" : n)).join(", "),
    "none, none, none, the newest, none, the newest, none, the newest");
  // A block that is held as it is in part only, because blocks have doubled since the last cut.
  for (const { size } = column; column.size === size;) take();
  check("a block held in part", (column.first - 1) % column.size !== 0, true);
  raw.length = column.cut(column.first + 1);
  for (let n = 0; n < 9000; n++) take();
  compare();
  held["after cuts"] = column.held;
  column.cut(0);
  check("all forgotten", `${column.length} ${column.held} ${column.filled}`, "0 0 false");

  // Items every n-th of which is held, and marks.
  const samples = new Samples(1024, 2048), marks = new Marks(), steps = [];
  for (let t = 0; t < length; t++) {
    samples.push(samples.length);
    if (t % 3 === 0) { marks.push(t); steps.push(t); }
    if (t === length - 3000) { samples.cut(t - 500); samples.cut(t - 20000); }
  }
  let last = -1, apart = 0;
  samples.each(0, samples.length, (t, item) => { check(`item ${t}`, item, t); apart = Math.max(apart, t - last); last = t; });
  check("the newest item", last, samples.length - 1);
  check("items no further apart than the stride", apart <= samples.stride, true);
  check("the item before a step", samples.at(samples.stepBefore(samples.stride + 1)), samples.stride);
  held["items"] = samples.recent.length + samples.older.length;
  const shown = [...marks];
  for (const step of steps) check(`a mark for step ${step}`, shown.some((mark) => mark <= step && step - mark < marks.grain), true);
  held["marks"] = shown.length;
  return { wrong, held };
}"""


def test_columns_of_a_long_run_are_bounded_and_tell_the_truth(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    sources = "".join(asset_path("js", name).read_text(encoding="utf-8") for name in ("columns.js", "samples.js"))
    for seed in (1, 2):
        found = studio.page.evaluate(TRY, [sources, LONG, seed])
        assert found["wrong"] == []
        held = found["held"]
        assert held["before the first figure"] == 0
        assert held["a fifth of the run"] == held["the run"] == held["after cuts"] <= 12_288  # a hundredth of a megabyte in all
        assert 2_048 < held["blocks"] <= 4_096  # finer than a pixel of any plot
        assert held["items"] <= 3_072 and held["marks"] <= 4_096


# The whole page, on a run that a stand-in for the server makes up

MADE_UP = 30_000
REPLY_ROWS = 2_000
SITES = 8


class MadeUp:
    """Answers a page's requests with a run of random figures, in the form of a real reply that was caught before."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.template, self.head = reply, reply["frame"]["index"]
        self.epoch, self.void = 1, 0  # so that the page takes all from here
        self.sites = list(reply["frame"]["sites"])
        random = np.random.default_rng(0)
        self.fidelity = random.uniform(0.9, 1.0, (MADE_UP + 1, SITES)).round(6)
        self.residual = random.uniform(0.1, 1.0, MADE_UP + 1).round(6)
        self.rank = random.integers(8, 64, (MADE_UP + 1, SITES))
        self.asked: list[dict[str, Any]] = []  # what the page sent
        self.told: list[int] = []  # rows per reply

    def events(self, step: int) -> list[dict[str, Any]]:
        """Growth every 20 steps, in turn at every site."""
        if step == 0 or step % 20:
            return []
        site = self.sites[step // 20 % SITES]
        return [{"step": step, "kind": "grew", "text": f"grew at {step}", "site": site, "before": 0.9, "after": 0.95, "seconds": None}]

    def row(self, step: int) -> dict[str, Any]:
        events, place = self.events(step), [math.cos(step), math.sin(step), step / MADE_UP, 0.0]
        sites = {}
        for name, fidelity, rank in zip(self.sites, self.fidelity[step].tolist(), self.rank[step].tolist(), strict=True):
            action = "grow" if any(event["site"] == name for event in events) else "keep"
            sites[name] = [fidelity, rank, action, None, fidelity, None, None]
        return {
            "index": step, "changed": step % 7, "halt_probability": (step % 101) / 100, "residual": float(self.residual[step]),
            "kept": step, "full": 2 * step, "latent": place, "functional": None, "kl": None, "flips": None, "gradient": None,
            "batch_solved": 0, "batch_right": 0.0, "right": step % 20, "events": events, "sites": sites,
        }  # fmt: skip

    def frame(self, step: int) -> dict[str, Any]:
        template = self.template["frame"]
        sites = {
            name: {**template["sites"][name], "fidelity": float(self.fidelity[step, i]), "rank": int(self.rank[step, i])}
            for i, name in enumerate(self.sites)
        }
        return {**template, "index": step, "sites": sites, "latent": self.row(step)["latent"], "events": self.events(step)}

    def reply(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        at = min(int(data["at"]), self.head)
        if name == "command_run" and data["name"] == "seek":
            at = data["value"] if data["value"] <= self.head else min(data["value"], at + REPLY_ROWS, MADE_UP)
        elif name == "tune_run":
            self.epoch, self.void, self.head = self.epoch + 1, at + 1, at
        elif name == "advance_run" and data["steps"]:
            at = min(MADE_UP, at + 1)
        self.head = max(self.head, at)
        known = self.head + 1 if data["epoch"] == self.epoch else self.void
        start = min(data["since"], self.head + 1, known)
        rows = [self.row(step) for step in range(start, min(start + REPLY_ROWS, self.head + 1))]
        self.told.append(len(rows))
        first = min(data.get("spectra_since", 0), self.head + 1, known)
        shares = [[0.5, 0.25, 0.125]] * (min(first + REPLY_ROWS, self.head + 1) - first)
        return {
            **self.template, "epoch": self.epoch, "head": self.head, "frame": self.frame(at), "rows": rows, "start": start,
            "spectra": {"site": data.get("site"), "start": first, "rows": shares} if data.get("site") else None,
            "event_count": self.head // 20, "state": "paused",
        }  # fmt: skip

    def answer(self, route: Route) -> None:
        body = json.loads(route.request.post_data or "{}")
        if body["fn_name"] not in ("advance_run", "command_run", "tune_run"):
            route.continue_()
            return
        self.asked.append(body["data"])
        route.fulfill(json=self.reply(body["fn_name"], body["data"]))


def go(studio: StudioPage, step: int) -> None:
    studio.page.keyboard.press("g")
    studio.page.keyboard.type(str(step))
    studio.page.keyboard.press("Enter")
    studio.at(step)


def pointed_at(studio: StudioPage, step: int) -> tuple[str, dict[str, str]]:
    """The tooltip of the fidelity plot near a step: which steps it is about, and the values by their names."""
    box = studio.page.locator("#fidelity-plot").bounding_box()
    span = int(studio.page.locator("#timeline").get_attribute("aria-valuemax") or 0)
    assert box is not None
    studio.page.mouse.move(box["x"] + 40 + step / span * (box["width"] - 52), box["y"] + 30)
    expect(studio.page.locator("#tip")).to_be_visible()
    lines = studio.page.locator("#tip .line").evaluate_all(
        "rows => rows.map((row) => [row.querySelector('span').textContent, row.querySelector('b').textContent])"
    )
    return lines[0][1] if lines[0][0].startswith("step") else "", {name: value for name, value in lines[1:] if name}


def on_made_up_run(open_page: Callable[..., Page], studio_server: str) -> tuple[StudioPage, MadeUp]:
    """A page that goes past the trained depth, and the made-up run that answers it from its second step on."""
    studio = StudioPage.opened(open_page, studio_server, "?beyond=1&step=20")
    studio.at(20)
    with studio.page.expect_response(re.compile("component_server")) as response:
        studio.click("step")
    studio.at(21)
    run = MadeUp(response.value.json())
    studio.page.route(re.compile("component_server"), run.answer)
    return studio, run


def shown(value: float) -> str:
    """A fidelity as the page writes it: four digits, never rounded up."""
    return f"{math.floor(1e4 * value) / 1e4:.4f}"


def test_a_page_on_a_very_long_run_holds_little_and_shows_what_was(open_page: Callable[..., Page], studio_server: str) -> None:
    studio, run = on_made_up_run(open_page, studio_server)
    page = studio.page

    go(studio, 6_000)
    held = page.evaluate("window.laserStudio.held")
    go(studio, MADE_UP)
    studio.until_script("document.getElementById('spectrum-plot').ariaLabel.includes('the first of 3')")
    assert page.evaluate("window.laserStudio.held") < 1.02 * held < 900_000
    assert studio.text("events-count") == f"newest 300 of {MADE_UP // 20:,}"

    # Pointing at a step: an old one is known with its block, of which the tooltip says so; a new one by itself.
    old, values = pointed_at(studio, 9_000)
    first, last = (int(text) for text in old.split(" to "))
    assert last - first + 1 == 8 and first <= 9_100 and last >= 8_900
    block = run.fidelity[first : last + 1]
    assert list(values.values()) == [f"{shown(low)} to {shown(high)}" for low, high in zip(block.min(0), block.max(0), strict=True)]
    newest, values = pointed_at(studio, MADE_UP - 700)
    assert newest.isdigit() and [text.split()[0] for text in values.values()] == [shown(value) for value in run.fidelity[int(newest)]]

    # At an old step, what is shown is that step's.
    go(studio, 12_345)
    assert [studio.site(name)[1] for name in run.sites] == [shown(value) for value in run.fidelity[12_345]]

    # The large view: bounded, every step in the file, and the steps themselves where one looks closely.
    page.locator("#fidelity-panel .zoom-open").click()
    expect(page.locator("#zoom")).to_have_attribute("data-state", "ready", timeout=30_000)
    lines = "() => document.querySelector('#zoom .chart').data.filter((trace) => trace.mode === 'lines')"
    assert all(len(line["x"]) <= 3 * 4_096 for line in page.evaluate(lines))
    marks = page.evaluate("document.querySelector('#zoom .chart').data.find((trace) => trace.name === 'growth').x")
    assert sorted(marks) == list(range(20, MADE_UP + 1, 20))
    expect(page.locator("#zoom-about")).to_contain_text("lowest and highest of every 8 steps")
    run.told.clear()
    with page.expect_download(timeout=120_000) as got:
        page.click("#zoom [data-act=csv]")
    table = list(csv.reader(io.StringIO(Path(got.value.path()).read_text(encoding="utf-8"))))
    assert [int(row[0]) for row in table[1:]] == list(range(1, MADE_UP + 1))
    assert np.array_equal(np.array([row[4:] for row in table[1:]], dtype=float), run.fidelity[1:])
    assert len(run.told) > 10 and max(run.told) <= REPLY_ROWS
    page.evaluate("window.Plotly.relayout(document.querySelector('#zoom .chart'), { 'xaxis.range': [9999.5, 10300] })")
    studio.until_script(f"({lines})()[0].x.includes(10002)")
    line = page.evaluate(lines)[3]
    near = {step: value for step, value in zip(line["x"], line["customdata"], strict=True) if 10_000 <= step <= 10_300}
    assert near == {step: run.fidelity[step, 3] for step in range(10_000, 10_301)}
    page.click("#zoom .close")

    # Other settings far back: what was held in blocks before that step is asked for again, as it was.
    run.asked.clear()
    studio.type_into("patience", "7")
    studio.until_script("document.getElementById('timeline').ariaValueMax < 20000")
    studio.until_script(
        "!document.querySelector('#events-list li') || document.querySelector('#events-list .when').textContent === 't 12340'"
    )
    assert min(request["since"] for request in run.asked[1:]) in range(12_345 - NEWEST - 64, 12_346 - NEWEST)
    before, values = pointed_at(studio, 11_000)
    assert before.isdigit() and [text.split()[0] for text in values.values()] == [shown(value) for value in run.fidelity[int(before)]]
    studio.click("step")
    studio.at(12_346)


def test_tables_of_a_run_that_was_changed_since_are_refused(open_page: Callable[..., Page], studio_server: str) -> None:
    studio, run = on_made_up_run(open_page, studio_server)
    page = studio.page
    go(studio, 10_000)
    page.locator("#fidelity-panel .zoom-open").click()
    expect(page.locator("#zoom")).to_have_attribute("data-state", "ready", timeout=30_000)
    run.epoch, run.void, run.head = 2, 101, 100
    page.click("#zoom [data-act=all]")
    expect(page.locator("#notice")).to_contain_text("the run was changed since")
