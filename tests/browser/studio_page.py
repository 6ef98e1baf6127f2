"""How a browser test drives and reads the studio: by what a user clicks, and by what stands on the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect


class StudioPage:
    """One page of the studio. `open_page` is the fixture that makes watched pages."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @classmethod
    def opened(cls, open_page: Callable[..., Page], url: str, query: str = "", **options: Any) -> StudioPage:
        """A new page on the studio, its first frame drawn."""
        studio = cls(open_page(**options))
        studio.goto(url, query)
        return studio

    def goto(self, url: str, query: str = "") -> None:
        """Open an address and wait for its first frame."""
        self.page.goto(f"{url}/{query}")
        self.page.wait_for_function("window.laserStudio?.ready === true")

    # What stands there

    def status(self, name: str) -> str:
        """A `data-` value of the status line."""
        return self.page.locator("#status").get_attribute(f"data-{name}") or ""

    @property
    def step(self) -> int:
        return int(self.status("step"))

    def text(self, identifier: str) -> str:
        """Text of the element of that id."""
        return self.page.locator(f"#{identifier}").inner_text()

    def cells(self) -> list[str]:
        """What stands in the cells of the board, row by row."""
        return self.page.locator("#board .cell").all_inner_texts()

    def marked(self, mark: str) -> list[int]:
        """Indices of the cells that carry a mark, "changed" or "wrong"."""
        script = "(cells, mark) => cells.flatMap((cell, i) => (cell.classList.contains(mark) ? [i] : []))"
        return list(self.page.locator("#board .cell").evaluate_all(script, mark))

    def site(self, name: str) -> list[str]:
        """The lines of one site in the site map: its short name, fidelity and rank."""
        return self.page.locator(f'#site-map [data-site="{name}"]').inner_text().split("\n")

    def memory(self) -> dict[str, str]:
        """Net saving per site as the memory panel shows it, by the site's label."""
        rows = self.page.locator("#memory-rows .memory-row")
        return {row.locator(".name").inner_text(): row.locator("b").inner_text() for row in rows.all()}

    def events(self) -> list[str]:
        """The lines of the events list, newest first."""
        script = (
            "rows => rows.map((row) => [...row.querySelectorAll('.what, .figures')].map((e) => e.textContent).filter(Boolean).join(' · '))"
        )
        return list(self.page.locator("#events-list li").evaluate_all(script))

    def picture(self, identifier: str) -> str:
        """The pixels of a canvas, to compare."""
        script = "canvas => new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(() => seen(canvas.toDataURL()))))"
        return str(self.page.locator(f"#{identifier}").evaluate(script))

    # What a user does

    def click(self, identifier: str) -> None:
        """Click a control."""
        self.page.click(f"#{identifier}")

    def slide(self, identifier: str, key: str) -> None:
        """Move a slider by a key: Home, End, ArrowLeft, PageUp …"""
        slider = self.page.locator(f"#{identifier} input[type=range]")
        slider.focus()
        slider.press(key)

    def type_into(self, identifier: str, value: str) -> None:
        """Type a number into a slider's field."""
        field = self.page.locator(f"#{identifier} input[type=number]")
        field.fill(value)
        field.press("Enter")

    def choose(self, identifier: str, text: str) -> None:
        """Choose a line of a dropdown by its text."""
        self.page.click(f"#{identifier} input")
        self.page.locator("ul.option-list .item", has_text=text).first.click()

    def pick(self, identifier: str, value: str) -> None:
        """Choose one of a row of radio buttons."""
        self.page.locator(f"#{identifier} input[value={value}]").check()

    def tab(self, name: str) -> None:
        """Open a tab: memory, halting, latents; spectrum, angles, rank."""
        self.page.click(f"#tab-{name}")

    def seek(self, share: float) -> None:
        """Click the timeline at a share of the run."""
        box = self.page.locator("#timeline").bounding_box()
        assert box is not None
        left, right = 106, 14  # gutters of the plot
        self.page.mouse.click(box["x"] + left + share * (box["width"] - left - right), box["y"] + box["height"] / 2)

    # Waiting

    def at(self, step: int) -> None:
        """Wait until that step is shown."""
        expect(self.page.locator("#status")).to_have_attribute("data-step", str(step), timeout=60_000)

    def until(self, name: str, value: str, timeout: float = 60_000) -> None:
        """Wait for a `data-` value of the status line."""
        expect(self.page.locator("#status")).to_have_attribute(f"data-{name}", value, timeout=timeout)

    def until_script(self, script: str, argument: Any = None, timeout: float = 60_000) -> None:
        """Wait until a script is true on the page."""
        self.page.wait_for_function(script, arg=argument, timeout=timeout)

    def play_to_the_end(self) -> None:
        """As fast as it goes."""
        self.slide("speed", "End")
        self.click("play")
        self.until("state", "done", timeout=120_000)
