"""A headless Chromium, and the dashboard over a real Valkey and a real catalog."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from tests.serving import folder, http, migrated, redis_url, runtime, serve, settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

__all__ = ["folder", "http", "migrated", "redis_url", "runtime", "serve", "settings"]

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Module by module: Playwright keeps an event loop in the main thread for as long as it runs."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("pip install playwright")
    names = (os.environ.get("SOURCEBUS_TEST_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium, or name one in SOURCEBUS_TEST_CHROMIUM")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens an address in a fresh profile. When the test ends no script failed, no policy was broken, nobody else was asked."""
    complaints: list[str] = []

    def listen(said: ConsoleMessage) -> None:
        # A browser notes refused requests (503 while something is down) by itself; the page handles them.
        if said.type == "error" and "Failed to load resource" not in said.text:
            complaints.append(said.text)

    def follow(request: Request) -> None:
        if not request.url.startswith("http://127.0.0.1"):
            complaints.append(request.url)

    def opened(address: str, *, width: int = 1280, dark: bool = False) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", follow)
        page.goto(address)
        return page

    yield opened
    for context in browser.contexts:
        context.close()
    assert complaints == []
