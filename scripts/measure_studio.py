"""Measure the studio in a real, headless Chromium: start, Step, Play, Pause, two pages at once.

    python scripts/measure_studio.py [--json FILE] [--starts 3] [--clicks 110] [--runs 6] [--device cpu]

Starts `app.py` itself. "Drawn" means that the step shown has changed and the browser has painted after it; while playing, the
board and the canvases of the panels are watched as well, so that only pictures that really were redrawn are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

from tests.browser.harness import CHROMIUM_ARGS, StudioProcess  # noqa: E402
from tests.chromium import find_chromium  # noqa: E402

READY = "window.laserStudio?.ready === true"

# Click in the page, so that no time of the driver is counted, and wait for the paint after the new step.
CLICKS = """async (count) => {
  const status = document.getElementById("status"), button = document.getElementById("step"), times = [];
  for (let n = 0; n < count; n++) {
    const before = status.dataset.step, start = performance.now();
    await new Promise((resolve) => {
      const watch = new MutationObserver(() => {
        if (status.dataset.step === before) return;
        watch.disconnect();
        requestAnimationFrame(() => setTimeout(resolve));
      });
      watch.observe(status, { attributes: true, attributeFilter: ["data-step"] });
      button.click();
    });
    times.push(performance.now() - start);
    if (status.dataset.state === "done") document.getElementById("restart").click();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return times;
}"""

# Count pictures while playing: changes of the step shown, with the canvases cleared and drawn again in between.
PLAY = """async (milliseconds) => {
  const status = document.getElementById("status");
  const drawn = { "fidelity-plot": 0, "timeline-plot": 0, "memory-plot": 0, "spectrum-plot": 0 };
  const clear = CanvasRenderingContext2D.prototype.clearRect;
  CanvasRenderingContext2D.prototype.clearRect = function (...box) {
    if (this.canvas.id in drawn) drawn[this.canvas.id] += 1;
    return clear.apply(this, box);
  };
  const at = [];
  const watch = new MutationObserver(() => at.push([performance.now(), Number(status.dataset.step)]));
  watch.observe(status, { attributes: true, attributeFilter: ["data-step"] });
  const start = performance.now();
  document.getElementById("play").click();
  while (performance.now() - start < milliseconds && status.dataset.state !== "done") await new Promise((r) => setTimeout(r, 10));
  const playing = status.dataset.state === "playing";
  const end = performance.now();
  const paused = performance.now();
  if (playing) document.getElementById("pause").click();
  await new Promise((resolve) => setTimeout(resolve, 600));
  watch.disconnect();
  CanvasRenderingContext2D.prototype.clearRect = clear;
  const during = at.filter(([time]) => time <= end);
  return {
    seconds: ((during.length ? during[during.length - 1][0] : end) - start) / 1000,
    pictures: Math.min(during.length, ...Object.values(drawn)),
    steps: during.length ? during[during.length - 1][1] : 0,
    after_pause: playing ? Math.max(0, (at.length ? at[at.length - 1][0] : 0) - paused) : null,
  };
}"""


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of all values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def measure_start(browser: Browser, folder: Path, device: str) -> dict[str, float]:
    """Seconds from starting `python app.py` until its page has drawn the demo and Play can be clicked."""
    studio = StudioProcess(REPOSITORY, folder / "start.log", device=device)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    started = time.perf_counter()
    try:
        studio.start()
        served = time.perf_counter() - started
        page.goto(studio.url)
        page.wait_for_function(READY, polling=10)
        page.wait_for_function("!document.getElementById('play').disabled", polling=10)
        return {"served_s": served, "usable_s": time.perf_counter() - started}
    finally:
        page.close()
        studio.stop()


def fast_page(browser: Browser, url: str, query: str = "") -> Page:
    """A page with the speed slider at its right end."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(f"{url}/{query}")
    page.wait_for_function(READY)
    slider = page.locator("#speed input[type=range]")
    slider.focus()
    slider.press("End")
    return page


def measure_play(page: Page, runs: int) -> dict[str, float]:
    """Pictures and steps per second at full speed, over whole runs from step 0, settings changed so that each is computed anew."""
    pictures = seconds = steps = 0.0
    for run in range(runs):
        page.locator("#restart").click()
        page.wait_for_function("document.getElementById('status').dataset.step === '0'")
        field = page.locator("#rank input[type=number]")
        field.fill(str(24 if run % 2 else 25))
        field.press("Enter")
        page.wait_for_timeout(300)
        result = page.evaluate(PLAY, 20_000)
        pictures, seconds, steps = pictures + result["pictures"], seconds + result["seconds"], steps + result["steps"]
    return {"pictures_per_s": pictures / seconds, "steps_per_s": steps / seconds, "pictures": pictures}


def measure_pause(page: Page, times: int) -> list[float]:
    """Milliseconds from the click on Pause to the last change of the picture."""
    late = []
    for run in range(times):
        page.locator("#restart").click()
        page.wait_for_function("document.getElementById('status').dataset.step === '0'")
        field = page.locator("#rank input[type=number]")
        field.fill(str(30 + run % 2))
        field.press("Enter")
        page.wait_for_timeout(200)
        result = page.evaluate(PLAY, 250 + 37 * run)
        if result["after_pause"] is not None:
            late.append(result["after_pause"])
    return late


def measure_two(browser: Browser, url: str, clicks: int) -> dict[str, float]:
    """One page plays at full speed again and again while the other is stepped by clicks."""
    player = fast_page(browser, url, "?puzzle=hard-0001")
    stepper = fast_page(browser, url, "?puzzle=medium-0002")
    player.evaluate(
        """() => {
          const status = document.getElementById("status");
          window.pictures = 0; window.from = performance.now();
          new MutationObserver(() => { window.pictures += 1; }).observe(status, { attributes: true, attributeFilter: ["data-step"] });
          window.again = setInterval(() => {
            if (status.dataset.state !== "playing") document.getElementById("play").click();
          }, 50);
          document.getElementById("play").click();
        }"""
    )
    times = stepper.evaluate(CLICKS, clicks)
    rate = player.evaluate("(() => { clearInterval(window.again); return 1000 * window.pictures / (performance.now() - window.from); })()")
    for page in (player, stepper):
        page.context.close()
    return {"step_p50_ms": quantile(times, 0.5), "step_p95_ms": quantile(times, 0.95), "pictures_per_s": rate}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="write the figures here, too")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--clicks", type=int, default=110)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    flags = parser.parse_args()
    chromium = find_chromium(os.environ)
    if chromium is None:
        sys.exit("no Chromium found: install one, or name it with CHROMIUM=/path")

    figures: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        starts = [measure_start(browser, Path(folder), flags.device) for _ in range(flags.starts)]
        figures["start"] = {name: statistics.median(start[name] for start in starts) for name in starts[0]}
        figures["starts_usable_s"] = [round(start["usable_s"], 2) for start in starts]
        with StudioProcess(REPOSITORY, Path(folder) / "studio.log", device=flags.device) as studio:
            page = fast_page(browser, studio.url)
            times = page.evaluate(CLICKS, flags.clicks)
            figures["step"] = {"clicks": len(times), "p50_ms": quantile(times, 0.5), "p95_ms": quantile(times, 0.95), "max_ms": max(times)}
            figures["play"] = measure_play(page, flags.runs)
            late = measure_pause(page, flags.runs)
            figures["pause"] = {"times": len(late), "max_ms": max(late), "median_ms": statistics.median(late)} if late else {}
            page.context.close()
            figures["two_pages"] = measure_two(browser, studio.url, flags.clicks)
        browser.close()
    report(figures)
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def report(figures: dict[str, Any]) -> None:
    """The figures as a table against what they are to reach, and as one line of JSON."""
    start, step, play, pause, two = (figures[name] for name in ("start", "step", "play", "pause", "two_pages"))
    rows = [
        ("start to first usable page (median)", f"{start['usable_s']:.1f} s", "≤ 6 s", start["usable_s"] <= 6),
        (f"click Step to new frame drawn, p50 of {step['clicks']}", f"{step['p50_ms']:.0f} ms", "", None),
        ("click Step to new frame drawn, p95", f"{step['p95_ms']:.0f} ms", "≤ 150 ms", step["p95_ms"] <= 150),
        ("Play at full speed, pictures drawn per second", f"{play['pictures_per_s']:.1f}", "≥ 15", play["pictures_per_s"] >= 15),
        ("Play at full speed, recursion steps per second", f"{play['steps_per_s']:.0f}", "", None),
        (
            "Pause to last change of the picture, worst",
            f"{pause.get('max_ms', float('nan')):.0f} ms",
            "≤ 150 ms",
            pause.get("max_ms", 1e9) <= 150,
        ),
        ("two pages: Step p95 while the other plays", f"{two['step_p95_ms']:.0f} ms", "", None),
        ("two pages: pictures per second of the one that plays", f"{two['pictures_per_s']:.1f}", "", None),
    ]
    about = figures["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, load before {about['load']:.1f}\n")
    for what, value, reach, good in rows:
        print(f"{what:<56} {value:>9}   {reach:<9} {'' if good is None else 'reached' if good else 'MISSED'}")
    print("\n" + json.dumps(figures))


if __name__ == "__main__":
    main()
