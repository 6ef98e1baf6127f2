"""Play a very long run in a real browser and watch the memory: `python scripts/measure_long.py [--steps 10000]`.

The run goes on past the trained depth at full speed. At every tenth of the steps the script notes the page's memory after a garbage
collection (JavaScript heap and typed arrays), the nodes of its document, how many numbers it holds of its run, the resident memory of
the studio's processes, and pictures drawn per second. At the end it says what each gained from the first note where the history has filled
its budget (`--history-mib`; until then it is meant to grow), or the second, to the last, and the slope of a straight line through them per
1,000 steps, which a single high or low moment moves less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from playwright.sync_api import CDPSession, sync_playwright  # noqa: E402

from laser_studio.studio.controls import RunOptions  # noqa: E402
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


def page_memory(tools: CDPSession) -> dict[str, float]:
    """What the page holds after a garbage collection. The heap alone would leave typed arrays out.

    The browser's own heap beside it is left out: there a browser that is driven by a program keeps 288 bytes of each request.
    """
    tools.send("HeapProfiler.collectGarbage")
    usage = tools.send("Runtime.getHeapUsage")
    return {"page_mb": (usage["usedSize"] + usage["backingStorageSize"]) / MB, "nodes": tools.send("Memory.getDOMCounters")["nodes"]}


def growth(notes: list[dict[str, float]], name: str) -> dict[str, float]:
    """What a figure gained over the notes, and its slope per 1,000 steps."""
    steps, values = [note["step"] for note in notes], [note[name] for note in notes]
    return {"gained": values[-1] - values[0], "per_1000_steps": 1_000 * statistics.linear_regression(steps, values).slope}


def main() -> None:
    """Play, note, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--history-mib", type=int, default=RunOptions().history, help="budget of activations and keyframes, MiB")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here, too")
    flags = parser.parse_args()
    if flags.steps < 10:
        parser.error("--steps: at least 10")
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
        page = fast_page(browser, studio.url, f"?beyond=1&history={flags.history_mib}")
        tools = page.context.new_cdp_session(page)
        tools.send("HeapProfiler.enable")
        page.locator("#play").click()
        started, drawn = time.monotonic(), 0
        every = flags.steps // 10
        for target in range(every, flags.steps + 1, every):
            page.wait_for_function(f"{STEP} >= {target}", timeout=600_000, polling=100)
            memory = page_memory(tools)
            pictures = page.evaluate("window.laserStudio.drawn")
            seconds = time.monotonic() - started
            notes.append(
                {
                    "step": page.evaluate(STEP),
                    **memory,
                    "held": page.evaluate("window.laserStudio.held"),
                    "server_mb": resident(studio.pid) / MB,
                    "full": page.locator("#events-panel li[data-kind=budget]").count() > 0,
                    "pictures_per_s": (pictures - drawn) / seconds,
                    "steps_per_s": every / seconds,
                }
            )
            started, drawn = time.monotonic(), pictures
            print("step {step:6.0f}   page {page_mb:6.2f} MB ({held:,.0f} numbers, {nodes:,.0f} nodes)   server {server_mb:7.1f} MB   "
                  "{pictures_per_s:5.1f} pictures/s   {steps_per_s:5.1f} steps/s".format(**notes[-1]), flush=True)  # fmt: skip
        page.locator("#pause").click()
        browser.close()
    first = next((number for number, note in enumerate(notes) if note["full"]), len(notes))
    settled = notes[max(1, first) :] if first < len(notes) - 1 else notes[1:]
    grown = {name: growth(settled, name) for name in ("page_mb", "server_mb")}
    report: dict[str, Any] = {"machine": machine(), "notes": notes, "growth": grown}
    filled = "has filled its budget by then" if settled[0]["full"] else "never filled its budget"
    print(f"\nfrom step {settled[0]['step']:,.0f} to {settled[-1]['step']:,.0f}; the history of {flags.history_mib} MiB {filled}")
    for name, by in grown.items():
        print(f"{name.removesuffix('_mb'):<6} {by['gained']:+6.2f} MB, {by['per_1000_steps']:+6.2f} MB per 1,000 steps")
    print(json.dumps(report))
    if flags.json:
        flags.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
