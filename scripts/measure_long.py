"""Play a very long run in a real browser and watch the memory: `python scripts/measure_long.py [--steps 10000]`.

The run goes on past the trained depth at full speed. At every thousandth step the script notes the page's JavaScript heap after a
garbage collection, the resident memory of the studio's processes, and pictures drawn per second, and at the end says how much
each grew over the second half of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from playwright.sync_api import sync_playwright  # noqa: E402

from scripts.measure_studio import fast_page, machine  # noqa: E402
from tests.browser.harness import CHROMIUM_ARGS, StudioProcess  # noqa: E402
from tests.chromium import find_chromium  # noqa: E402

STEP = "Number(document.getElementById('status').dataset.step)"
MB = 1 << 20


def resident(pid: int) -> int:
    """Resident bytes of a process and all its children (Linux)."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            todo += [int(child) for task in Path(f"/proc/{one}/task").iterdir() for child in (task / "children").read_text().split()]
        except OSError:
            continue
        total += next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
    return total


def main() -> None:
    """Play, note, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here, too")
    flags = parser.parse_args()
    chromium = find_chromium(os.environ)
    if chromium is None:
        sys.exit("no Chromium found: install one, or name it with CHROMIUM=/path")
    notes: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        StudioProcess(REPOSITORY, Path(folder) / "studio.log", device=flags.device) as studio,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        page = fast_page(browser, studio.url, "?beyond=1")
        tools = page.context.new_cdp_session(page)
        tools.send("HeapProfiler.enable")
        page.locator("#play").click()
        started, drawn = time.monotonic(), 0
        every = max(1, flags.steps // 10)
        for target in range(every, flags.steps + 1, every):
            page.wait_for_function(f"{STEP} >= {target}", timeout=600_000, polling=100)
            tools.send("HeapProfiler.collectGarbage")
            heap = tools.send("Runtime.getHeapUsage")["usedSize"]
            pictures = page.evaluate("window.laserStudio.drawn")
            seconds = time.monotonic() - started
            notes.append(
                {
                    "step": page.evaluate(STEP),
                    "page_mb": heap / MB,
                    "server_mb": resident(studio.pid) / MB,
                    "pictures_per_s": (pictures - drawn) / seconds,
                    "steps_per_s": every / seconds,
                }
            )
            started, drawn = time.monotonic(), pictures
            print("step {step:6.0f}   page {page_mb:6.1f} MB   server {server_mb:7.1f} MB   "
                  "{pictures_per_s:5.1f} pictures/s   {steps_per_s:5.1f} steps/s".format(**notes[-1]), flush=True)  # fmt: skip
        page.locator("#pause").click()
        said = page.locator("#events-panel li[data-kind=budget]").count()
        browser.close()
    half = notes[len(notes) // 2 - 1]
    growth: dict[str, Any] = {name: notes[-1][name] - half[name] for name in ("page_mb", "server_mb")}
    print(f"\nover the second half: page {growth['page_mb']:+.1f} MB, server {growth['server_mb']:+.1f} MB; budget notes on screen: {said}")
    print(json.dumps({"machine": machine(), "notes": notes, "growth": growth}))
    if flags.json:
        flags.json.write_text(json.dumps({"machine": machine(), "notes": notes, "growth": growth}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
