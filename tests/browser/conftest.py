"""Fixtures of the browser tests: the running studio, and pages that are watched while a test drives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.harness import CHROMIUM_ARGS, PageWatch, StudioError, StudioProcess

HERE = Path(__file__).parent
STUDIOS = pytest.StashKey[list[StudioProcess]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STUDIOS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """A failed test shows what the studios it could have talked to had printed."""
    report: Any = yield
    if report.failed and item.path.is_relative_to(HERE):
        for studio in item.config.stash.get(STUDIOS, []):
            report.sections.append((f"studio at {studio.url}", studio.output()))
    return report


@pytest.fixture(scope="session")
def start_studio(
    pytestconfig: pytest.Config, repository: Path, chromium: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., str]]:
    """`start_studio("--checkpoint", path)` runs `app.py` with these flags and returns its URL; ended with the session.

    Asks for `chromium` first, so that nothing is started where no browser could look at it.
    """
    studios = pytestconfig.stash.setdefault(STUDIOS, [])
    folder = tmp_path_factory.mktemp("studios")

    def start(*flags: str) -> str:
        studio = StudioProcess(repository, folder / f"studio-{len(studios)}.log", *flags)
        studios.append(studio)
        try:
            studio.start()
        except StudioError as failure:
            pytest.fail(str(failure), pytrace=False)
        return studio.url

    yield start
    for studio in studios:
        studio.stop()


@pytest.fixture(scope="session")
def studio_server(start_studio: Callable[..., str]) -> str:
    """URL of a studio started as the README starts it (on the CPU), shared by all browser tests."""
    return start_studio()


# Per module: Playwright keeps an event loop in the main thread while it lives, which would break other tests' asyncio.
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(**context options)` makes a page in a context of its own, 1280×800; at the end none may have misbehaved."""
    watches: list[PageWatch] = []
    contexts = []

    def open_one(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        watches.append(PageWatch(page))
        return page

    yield open_one
    for context in contexts:
        context.close()
    for watch in watches:
        watch.check()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """One watched page; the test navigates it, usually to `studio_server`."""
    return open_page()
