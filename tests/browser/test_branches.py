"""Branches and comparison as a user has them: made from the form, opened, compared in lockstep, named by the address."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.studio_page import StudioPage

PUZZLE = "?model=sudoku-6x6&puzzle=hard-0001"


def go_to(studio: StudioPage, step: int) -> None:
    studio.page.keyboard.press("g")
    field = studio.page.locator("#goto input")
    expect(field).to_be_focused()
    field.fill(str(step))
    field.press("Enter")
    studio.at(step)


def branch(studio: StudioPage, kind: str, **values: str) -> None:
    """A branch from the step shown; waits until it is what the page shows."""
    page = studio.page
    page.click("#tab-branches")
    page.click("#branch-new")
    page.select_option("#branch-kind", kind)
    for field, value in values.items():
        if page.locator(f"#branch-{field}").evaluate("node => node.tagName") == "SELECT":
            page.select_option(f"#branch-{field}", value)
        else:
            page.fill(f"#branch-{field}", value)
    page.click("#branch-make")
    expect(page.locator("#branch-list li").last).to_have_class("here")


def small_board(page: Page, side: str) -> list[str]:
    """The cells of a small board of the comparison, as it says them."""
    words = page.locator(f"#compare-{side}").get_attribute("aria-label") or ""
    return words.partition(": ")[2].replace(" /", "").split(" ")


def open_cells(studio: StudioPage, cells: list[str]) -> list[str]:
    """Those that the puzzle does not fix; there a small board shows what the model answers, the large one the given."""
    given = studio.marked("given")
    return [cell for place, cell in enumerate(cells) if place not in given]


def test_a_branch_is_made_opened_renamed_and_deleted(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, PUZZLE)
    page = studio.page
    go_to(studio, 30)
    go_to(studio, 24)
    main = studio.cells()
    branch(studio, "state", state="H", change="zero", title="no answer")
    rows = page.locator("#branch-list li")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_have_class("here")
    expect(rows.nth(1).locator(".branch-name")).to_have_text("no answer")
    expect(page.locator("#branch-count")).to_have_text("1 of 12")
    assert studio.step == 24 and studio.cells() == main
    studio.until_script("location.search.includes('branch=24')")
    studio.click("step")
    studio.at(25)
    expect(rows.nth(1).locator(".branch-news")).to_contain_text("parts from main at t 25, answer at t 25")
    assert studio.cells() != main
    # The run it was made from is as it was, and the branch stays in the list.
    rows.nth(0).locator(".branch-name").click()
    studio.until_script("document.querySelector('#branch-list li').classList.contains('here')")
    studio.at(24)
    assert studio.cells() == main
    rows.nth(1).get_by_label("Rename.").click()
    page.locator(".branch-rename").fill("blank")
    page.locator(".branch-rename").press("Enter")
    expect(rows.nth(1).locator(".branch-name")).to_have_text("blank")
    rows.nth(1).get_by_label("Delete, and free what it holds.").click()
    expect(page.locator("#branch-empty")).to_be_visible()


def test_a_clicked_cell_is_edited_and_marked(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, PUZZLE)
    page = studio.page
    go_to(studio, 5)
    page.click("#tab-branches")
    page.click("#branch-new")
    page.locator("#board .cell").nth(8).click()  # row 2, column 3: a given
    assert (page.input_value("#branch-kind"), page.input_value("#branch-row"), page.input_value("#branch-column")) == ("edit", "2", "3")
    assert page.input_value("#branch-value") == "0"
    page.click("#branch-make")
    expect(page.locator("#board .edited")).to_have_count(1)
    expect(page.locator("#board .cell").nth(8)).not_to_have_class("cell given edited")
    expect(page.locator("#board .given")).to_have_count(11)


def test_two_runs_are_compared_at_one_cursor(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, PUZZLE)
    page, card = studio.page, studio.page.locator("#compare-card")
    go_to(studio, 30)
    branch(studio, "reconstruct", where="", rank="8")
    page.locator("#branch-list li").nth(0).get_by_text("compare").click()
    expect(card).to_be_visible()
    expect(card).to_have_attribute("data-step", "30")
    expect(page.locator("#compare-model")).to_have_text("not yet")
    assert studio.text("compare-kl-now") == "0" and studio.text("compare-cells") == "same answer"
    go_to(studio, 60)
    expect(card).to_have_attribute("data-step", "60")
    expect(page.locator("#compare-model")).to_have_text("t 31")
    assert float(studio.text("compare-kl-now")) > 0
    # Both are the runs' own: B's answer is what the main run shows there, and A's is the board.
    answers = [small_board(page, side) for side in "ab"]
    assert open_cells(studio, answers[0]) == open_cells(studio, studio.cells())
    differing = sum(a != b for a, b in zip(*answers, strict=True))
    assert studio.text("compare-cells") == (f"{differing} cell{'s' * (differing > 1)} differ" if differing else "same answer")
    expect(page.locator("#compare-rows > div")).to_have_count(8)
    # A click on the step where they part goes there, with both.
    page.click("#compare-model")
    studio.at(31)
    expect(card).to_have_attribute("data-step", "31")
    # Playing moves both.
    studio.click("play")
    studio.until_script("Number(document.querySelector('#compare-card').dataset.step) > 36")
    studio.click("pause")
    studio.until_script("document.querySelector('#compare-card').dataset.step === document.querySelector('#status').dataset.step")
    # Opening B makes the two change places.
    page.locator("#branch-list li").nth(0).locator(".branch-name").click()
    expect(page.locator("#compare-name-b")).to_have_text("rank 8 @ 30")
    expect(page.locator("#compare-name-a")).to_have_text("main")
    go_to(studio, 60)
    expect(card).to_have_attribute("data-step", "60")
    assert small_board(page, "a") == answers[1] and small_board(page, "b") == answers[0]
    assert open_cells(studio, answers[1]) == open_cells(studio, studio.cells())
    # Other settings of the tracker: the model is the same, the trackers are not.
    page.select_option("#compare-with", "preset:aggressive")
    expect(page.locator("#compare-name-b")).to_have_text("aggressive")
    studio.until_script("document.querySelector('#compare-tracker').textContent.startsWith('t ')")
    expect(page.locator("#compare-model")).to_have_text("not yet")
    page.select_option("#compare-with", "")
    expect(page.locator("#compare-empty")).to_be_visible()


def test_the_address_opens_the_branch(open_page: Callable[..., Page], studio_server: str) -> None:
    studio = StudioPage.opened(open_page, studio_server, PUZZLE)
    go_to(studio, 10)
    branch(studio, "cycles", cycles="-1", level="L", every="1")
    go_to(studio, 20)
    studio.until_script("location.search.includes('branch=10') && location.search.includes('step=20')")
    other = StudioPage.opened(open_page, studio_server, studio.page.evaluate("location.search"))
    other.at(20)
    assert other.cells() == studio.cells()
    address = "document.querySelector('#status-text').textContent"
    assert other.page.evaluate(address) == studio.page.evaluate(address)
    other.page.click("#tab-branches")
    expect(other.page.locator("#branch-list li")).to_have_count(2)
