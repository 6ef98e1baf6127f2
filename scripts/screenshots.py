"""Take the README's pictures of the studio: `python scripts/screenshots.py [--out assets/screenshots] [--only NAME …]`.

Starts `app.py`, plays the demo in a headless Chromium and photographs it light and dark, mid-run and solved,
small and large; then the evaluation page on the demo's shipped report, and the training page after a whole run with settings
changed on the way (minutes).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

from tests.browser.harness import CHROMIUM_ARGS, StudioProcess  # noqa: E402
from tests.chromium import find_chromium  # noqa: E402

PUZZLE = "hard-0002"
# Name, colour scheme, size, step shown (None: the end), tabs opened.
PICTURES: tuple[tuple[str, str, tuple[int, int], int | None, tuple[str, ...]], ...] = (
    ("light", "light", (1280, 800), 67, ()),
    ("dark", "dark", (1280, 800), 67, ()),
    ("light-solved", "light", (1280, 800), None, ("latents", "angles")),
    ("dark-solved", "dark", (1280, 800), None, ("halting", "rank")),
    ("large", "dark", (1920, 1080), 92, ()),
    ("phone", "light", (390, 844), 67, ()),
)
# At step 30 the threshold is raised and patience lowered, so that the pictures show growth and resets as well.
QUERY = f"?puzzle={PUZZLE}&functional=1&gradient=1&best=1&change=30~25%25~0.99~2~cycle"


def show(page: Page, url: str, query: str, step: int | None, tabs: tuple[str, ...] = ()) -> None:
    """Open the studio at a step, every step of the way really computed, with these tabs open."""
    page.goto(f"{url}/{query}&step={100_000 if step is None else step}")
    page.wait_for_function("window.laserStudio?.ready === true")
    done = "document.getElementById('status').dataset.state === 'done'"
    page.wait_for_function(done if step is None else f"document.getElementById('status').dataset.step === '{step}'", timeout=120_000)
    if page.locator("#notice").is_visible():
        page.locator("#notice button").last.click()
    for tab in tabs:
        page.click(f"#tab-{tab}")
    page.mouse.move(2, 2)
    page.wait_for_timeout(500)


@contextmanager
def studio_and_browser(out: Path) -> Iterator[tuple[str, Browser]]:
    """The URL of a studio started for this, and a headless Chromium; the folder for the pictures is made."""
    chromium = find_chromium(os.environ)
    if chromium is None:
        sys.exit("no Chromium found: install one, or name it with CHROMIUM=/path")
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        StudioProcess(REPOSITORY, Path(folder) / "studio.log", "--runs", f"{folder}/runs") as studio,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        yield studio.url, browser
        browser.close()


def picture_options(words: str | None, default: Path, names: Sequence[str]) -> tuple[Path, set[str]]:
    """What `--out` and `--only` say; `words` is the script's own description, `names` are those of its pictures."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--only", nargs="+", choices=names, default=list(names), metavar="NAME", help=", ".join(names))
    told = parser.parse_args()
    return told.out, set(told.only)


def main() -> None:
    """Take all pictures."""
    names = [*(name for name, *_ in PICTURES), "evaluation", "train"]
    out, wanted = picture_options(__doc__, REPOSITORY / "assets" / "screenshots", names)
    with studio_and_browser(out) as (url, browser):
        for name, scheme, (width, height), step, tabs in PICTURES:
            if name not in wanted:
                continue
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light")
            page = context.new_page()
            show(page, url, QUERY, step, tabs)
            target = out / f"{name}.png"
            page.screenshot(path=target)
            print(f"{target.relative_to(REPOSITORY) if target.is_relative_to(REPOSITORY) else target}", flush=True)
            context.close()
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        if "evaluation" in wanted:
            page.goto(f"{url}/evaluation")
            page.wait_for_selector("#evaluation[data-drawn]")
            page.wait_for_timeout(500)
            page.screenshot(path=out / "evaluation.png")
        if "train" in wanted:
            train(page, url)
            page.screenshot(path=out / "train.png")


def train(page: Page, url: str) -> None:
    """Train the page's default run to its end: the rank is taken down to 40 % after 150 steps, the threshold raised after 250."""
    page.goto(f"{url}/train")
    page.wait_for_selector("#train-page[data-ready]")
    page.click("#train-start")
    for step, name, value in ((150, "rank", "40"), (250, "min-fidelity", "0.97")):
        page.wait_for_function(f"Number(document.getElementById('train-page').dataset.step) >= {step}", timeout=3_600_000)
        page.fill(f"#train-{name}-number", value)
        page.press(f"#train-{name}-number", "Enter")
    page.wait_for_selector('#train-page[data-run="done"]', timeout=3_600_000)
    page.mouse.move(2, 2)
    page.wait_for_timeout(2_000)


if __name__ == "__main__":
    main()
