"""Take the pictures of single panels for docs/panels: `python scripts/panel_pictures.py [--out docs/pictures]`.

Starts `app.py`, runs the demo on a hard held-out puzzle with every measure on, opens each panel in turn and photographs it alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from playwright.sync_api import sync_playwright  # noqa: E402

from tests.browser.harness import CHROMIUM_ARGS, StudioProcess  # noqa: E402
from tests.chromium import find_chromium  # noqa: E402

STEP = 92
# The threshold is raised on the way, so that growth and resets are seen as well.
QUERY = f"?puzzle=hard-0002&functional=1&gradient=1&best=1&batch=4&change=30~25%25~0.99~2~cycle&step={STEP}"
# Picture, what to click first, what to photograph.
PANELS: tuple[tuple[str, str | None, str], ...] = (
    ("board", None, "#board-card"),
    ("tracker", None, "#tracker"),
    ("recursion", None, "#recursion-card"),
    ("headline", None, "#headline"),
    ("events", None, "#events-panel"),
    ("fidelity", None, "#fidelity-panel"),
    ("memory", "#tab-memory", "#memory-panel"),
    ("halting", "#tab-halting", "#memory-panel"),
    ("latents", "#tab-latents", "#memory-panel"),
    ("spectrum", "#tab-spectrum", "#basis-panel"),
    ("angles", "#tab-angles", "#basis-panel"),
    ("rank", "#tab-rank", "#basis-panel"),
    ("timeline", None, "#deck"),
    ("large", "#fidelity-panel .zoom-open", "#zoom"),
)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "pictures")
    out = parser.parse_args().out
    chromium = find_chromium(os.environ)
    if chromium is None:
        sys.exit("no Chromium found: install one, or name it with CHROMIUM=/path")
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        StudioProcess(REPOSITORY, Path(folder) / "studio.log") as studio,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        context = browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=1.5, color_scheme="light")
        page = context.new_page()
        page.goto(f"{studio.url}/{QUERY}")
        page.wait_for_function("window.laserStudio?.ready === true")
        page.wait_for_function(f"document.getElementById('status').dataset.step === '{STEP}'", timeout=120_000)
        if page.locator("#notice").is_visible():
            page.locator("#notice button").last.click()
        for name, click, what in PANELS:
            if click is not None:
                page.locator(click).click()
            page.mouse.move(2, 2)
            page.wait_for_timeout(2_000 if name == "large" else 400)
            page.locator(what).screenshot(path=out / f"{name}.png")
            print(name, flush=True)
        browser.close()


if __name__ == "__main__":
    main()
