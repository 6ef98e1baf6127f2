"""Opening a model of one's own: a file that tells everything, one that does not, one that is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from laser_studio.assets import asset_path
from tests.browser.studio_page import StudioPage

OFFICIAL = Path(__file__).parent.parent / "data" / "conformance" / "mlp_t"


def send(page: Page, *files: Path) -> None:
    page.set_input_files("#models-files", list(files))
    page.click("#models-file button")


def test_files_are_sent_checked_and_opened(open_page: Callable[..., Page], studio_server: str, tmp_path: Path) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    page, small = studio.page, asset_path("checkpoints") / "sudoku-4x4"
    page.click("#open-model")
    expect(page.locator("#models-file button")).to_be_disabled()
    fake = tmp_path / "model.pt"
    fake.write_text("<html>not found</html>")
    send(page, fake)
    expect(page.locator("#models-problem")).to_contain_text("web page", timeout=20_000)

    send(page, small / "model.safetensors", small / "config.json")
    expect(page.locator("#models")).to_be_hidden(timeout=20_000)
    studio.until_script("window.laserStudio.ready && document.querySelectorAll('#board .cell').length === 16")
    expect(page.locator("#notice")).to_contain_text("weights")
    studio.click("step")
    studio.at(1)

    # What the tensors do not tell is asked for, with the official values in place.
    page.keyboard.press("u")
    send(page, OFFICIAL / "step_100")
    expect(page.locator("#need-H_cycles")).to_have_value("3", timeout=20_000)
    page.fill("#need-H_cycles", "2")
    page.fill("#need-halt_max_steps", "4")
    page.click("#models-needs button")
    expect(page.locator("#models")).to_be_hidden(timeout=20_000)
    studio.until_script("window.laserStudio.ready && document.querySelectorAll('#board .cell').length === 81")
    expect(page.locator("#board-step")).to_have_text("step 0 / 56")


def test_a_reference_that_is_none_says_so(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server)
    studio.page.keyboard.press("u")
    studio.page.fill("#models-reference", "no model")
    studio.page.keyboard.press("Enter")
    expect(studio.page.locator("#models-problem")).to_contain_text("cannot be looked up", timeout=20_000)
    studio.page.keyboard.press("Escape")
    expect(studio.page.locator("#models")).to_be_hidden()


def test_a_model_named_at_the_start_asks_for_what_it_does_not_tell(
    open_page: Callable[..., Page], start_studio: Callable[..., str], tmp_path: Path
) -> None:
    weights = shutil.copy(OFFICIAL / "step_100", tmp_path / "step_100")  # without its configuration
    url = start_studio("--checkpoint", str(weights))
    studio = StudioPage.opened(open_page, url)
    studio.choose("model", "step_100")
    page = studio.page
    expect(page.locator("#models-asks")).to_contain_text("step_100 does not tell these", timeout=20_000)
    page.click("#models-needs button")
    studio.until_script("window.laserStudio.ready && document.querySelectorAll('#board .cell').length === 81")
    studio.click("step")
    studio.at(1)
