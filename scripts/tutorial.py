"""The figures and pictures of docs/tutorial.md: `python scripts/tutorial.py [--pictures] [--out docs/pictures]`.

Runs `sudoku-6x6` on the puzzle of the tutorial with the studio's own settings and prints what the tutorial quotes (half a minute); with
--pictures the same is done on the page, and photographed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from playwright.sync_api import Page, expect  # noqa: E402

from laser_studio.debugger import ChangeState, Detectors, Intervention, Reconstruct, Session  # noqa: E402
from laser_studio.debugger.looking import token_probabilities  # noqa: E402
from laser_studio.puzzles.generated import generated, read_generated  # noqa: E402
from laser_studio.studio.controls import TrackerView  # noqa: E402
from laser_studio.trm import load_checkpoint  # noqa: E402
from scripts.screenshots import show, studio_and_browser  # noqa: E402

MODEL, PUZZLE, CELL = "sudoku-6x6", "generated:hard:82", 5  # row 1, column 6
TRAINED, FAR = 120, 300
WHAT_IF: tuple[tuple[int, Intervention], ...] = (
    (50, ChangeState(state="H", change="noise", size=0.05, seed=1)),
    (75, ChangeState(state="L", change="zero")),
    (75, ChangeState(state="H", change="zero")),
    (120, ChangeState(state="H", change="zero")),
    (30, Reconstruct()),
    (30, Reconstruct(rank=32)),
    (30, Reconstruct(rank=16)),
    (30, Reconstruct(sites=("layers.0.mlp.gate_up_proj",), rank=32)),
)


def figures() -> None:
    """Print everything the tutorial says, from a session."""
    recipe = read_generated(PUZZLE)
    assert recipe is not None
    model = load_checkpoint(REPOSITORY / "assets" / "checkpoints" / MODEL)
    session = Session(model, generated("sudoku", 6, *recipe), policy=TrackerView().policy(), beyond=True)
    session.breakpoints.add("unsolved")
    session.run()
    print(f"stopped at {session.frame.index}: {', '.join(hit.expression for hit in session.stopped_by)}")
    session.breakpoints.clear()
    session.seek(TRAINED)
    for finding in Detectors.of(session).follow(session):
        print(f"t {finding.step}: {finding.text}")
    ends = [frame for frame in session.frames if frame.index % 5 == 0 and frame.index]
    print("H cycle: right cells, q_halt, residual")
    for frame in ends:
        print(f"  {frame.index:4} {frame.right:3} {frame.q_halt:7.2f} {frame.residual:8.3f}")
    told = token_probabilities(session, CELL, 0, TRAINED + 1)
    print(f"row 1, column 6: {' '.join(told.labels)}")
    for step, row in zip(told.steps, told.values.tolist(), strict=True):
        print(f"  {step:4} " + " ".join(f"{value:.3f}" for value in row))
    for at, what in WHAT_IF:
        branch = session.branch(at, what)
        branch.seek(FAR)
        kept = {
            frame.index: frame.right for frame in branch.frames if frame.index in (at + 15, 90, TRAINED, 180, 240, FAR) and frame.index > at
        }
        print(f"from {at}: {what.sentence()}: right cells {kept}")
        branch.close()


def pictures(out: Path) -> None:
    """Do the same on the page, and photograph it."""
    query = f"?model={MODEL}&puzzle={PUZZLE}"
    with studio_and_browser(out) as (url, browser):
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page = context.new_page()
        show(page, url, f"{query}&watch=confidence(1, 6)&watch=residual&mark=40~at rest&break=unsolved", 0, ("findings",))
        page.click("#play")
        expect(page.locator("#status")).to_have_attribute("data-step", "90", timeout=60_000)
        page.locator("#board .cell").nth(CELL).click()
        page.locator("#views input[value=solve]").check(force=True)
        picture(page, out / "tutorial-stop.png")
        page.click("#tab-watches")
        seek(page, TRAINED)
        picture(page, out / "tutorial-watch.png", "#events-panel")
        picture(page, out / "tutorial-cell.png", "#view-solve")
        show(page, url, f'{query}&branch=30~{{"kind":"reconstruct","rank":32}}', TRAINED, ("branches",))
        page.locator("#views input[value=compare]").check(force=True)
        page.select_option("#compare-with", index=1)
        page.wait_for_function("document.getElementById('compare-rows').childElementCount > 0", timeout=60_000)
        page.wait_for_timeout(12_000)  # the curves are filled in while the page rests
        picture(page, out / "tutorial-compare.png")


def seek(page: Page, step: int) -> None:
    """Go to a step, by its number."""
    page.keyboard.press("g")
    page.fill("#goto-step", str(step))
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_attribute("data-step", str(step), timeout=60_000)


def picture(page: Page, path: Path, what: str = "") -> None:
    """The page, or a part of it, as it is once it has come to rest."""
    page.mouse.move(2, 2)
    page.wait_for_timeout(2_500)
    if what:
        page.locator(what).screenshot(path=path)
    else:
        page.screenshot(path=path)
    print(path.name, flush=True)


def main() -> None:
    """Figures, or pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "pictures")
    told = parser.parse_args()
    if told.pictures:
        pictures(told.out)
    else:
        figures()


if __name__ == "__main__":
    main()
