"""Take the pictures of single panels for docs/panels: `python scripts/panel_pictures.py [--out docs/pictures]`.

Starts `app.py`, runs the demo on a hard held-out puzzle with every measure on, opens each panel in turn and photographs it alone; then,
on a flawed model, what looks into its answer.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from playwright.sync_api import Page  # noqa: E402

from scripts.screenshots import picture_options, show, studio_and_browser  # noqa: E402

STEP = 92
# The threshold is raised on the way, so that growth and resets are seen as well.
QUERY = "?puzzle=hard-0002&functional=1&gradient=1&best=1&batch=4&change=30~25%25~0.99~2~cycle"
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
FLAWED = "?model=maze-9x9-mixer-early&puzzle=generated:easy:4"
FLAWED_STEP = 120
DEEPER: tuple[tuple[str, str], ...] = (("solve", "#view-solve"), ("findings", "#events-panel"))


def main() -> None:
    """Take all pictures."""
    names = [*(name for name, *_ in PANELS), *dict(DEEPER)]
    out, wanted = picture_options(__doc__, REPOSITORY / "docs" / "pictures", names)
    with studio_and_browser(out) as (url, browser):
        context = browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=1.5, color_scheme="light")
        page = context.new_page()
        if wanted & {name for name, *_ in PANELS}:
            show(page, url, QUERY, STEP)
        for name, click, what in PANELS:
            if name not in wanted:
                continue
            if click is not None:
                page.locator(click).click()
            page.mouse.move(2, 2)
            page.wait_for_timeout(2_000 if name == "large" else 400)
            page.locator(what).screenshot(path=out / f"{name}.png")
            print(name, flush=True)
        if wanted & dict(DEEPER).keys():
            other = context.new_page()
            look_deeper(other, url)
            for name, what in DEEPER:
                if name in wanted:
                    other.locator(what).screenshot(path=out / f"{name}.png")
                    print(name, flush=True)


def look_deeper(page: Page, url: str) -> None:
    """Open a cell in the oscillating part of a wrong answer, and the findings."""
    show(page, url, FLAWED, FLAWED_STEP, ("findings",))
    page.locator("#views input[value=solve]").check(force=True)
    page.locator("#board .cell").nth(30).click()
    page.locator("#directions-flips").click()
    page.wait_for_function("document.getElementById('directions-plot').getAttribute('aria-label').includes('flips')", timeout=60_000)
    page.mouse.move(2, 2)
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
