"""A real browser for tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium")

#: Milliseconds within which whatever a test expects of a page must have come about.
PATIENCE = 60_000

expect.set_options(timeout=PATIENCE)

#: Put on every test that opens a browser.
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt-get install --no-install-recommends chromium"
)

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
    "--disable-component-update",
    "--disable-quic",
)

Mode = Literal["light", "dark", "mobile"]
MODES: tuple[Mode, ...] = ("light", "dark", "mobile")

#: Sizes of the windows: a laptop's, a telephone's.
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Run a browser for the length of the block."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield running
        finally:
            await running.close()


async def reader(running: Browser, base: str, mode: Mode = "light", **more: Any) -> BrowserContext:
    """Return a fresh reader: cookies, storage and a window of their own, in Berlin."""
    chosen: dict[str, Any] = {
        "base_url": base,
        "viewport": NARROW if mode == "mobile" else WIDE,
        "color_scheme": "light" if mode == "light" else "dark",
        "timezone_id": "Europe/Berlin",
    }
    context = await running.new_context(**(chosen | more))
    context.set_default_timeout(PATIENCE)
    return context


class Complaints:
    """What the browser complains of on a page: errors, refused content, failed scripts."""

    def __init__(self, page: Page) -> None:
        self.heard: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.heard.append(str(error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.heard.append(message.text)
