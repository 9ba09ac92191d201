"""Opens pages in Debian's Chromium, and holds each to what every page of ours must keep.

A visit fails if the page wrote an error to the console, raised one, asked anything off its origin,
or is wider than the screen. Playwright's calls block and belong to one thread: beside a network in
trio, make a whole visit inside one `trio.to_thread.run_sync`. Starting Chromium takes about a
second of processor time, so one browser should serve all the visits of a test.

    with open_browser() as browser, visit(browser, url, "phone") as seen:
        seen.page.click("text=Nodes")
        seen.picture("nodes")
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

CHROMIUM: Final = shutil.which("chromium")
TIMEOUT_MS: Final = 60_000  # of a machine that has other work, too
# Where pictures go, if anywhere: ASSAY_PICTURES=docs/images writes those the docs show.
PICTURES: Final = os.environ.get("ASSAY_PICTURES")
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1180, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1180, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}
_ARGUMENTS: Final = (
    "--no-sandbox",  # as root in a container there is none to be had
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


MISSING: Final = (
    "playwright is not installed"
    if find_spec("playwright") is None
    else "chromium is not installed: apt-get install chromium"
    if CHROMIUM is None
    else ""
)
needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@dataclass(slots=True)
class Visit:
    """A page and what was wrong with it so far; add to `expected` the codes of answers that a
    test provokes (Chromium writes each failed request to the console)."""

    page: Any
    look: str
    faults: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def picture(self, name: str, **more: Any) -> None:
        """Write {name}-{look}.png, if pictures are wanted; `more` is Playwright's."""
        if PICTURES is not None:
            folder = Path(PICTURES)
            folder.mkdir(parents=True, exist_ok=True)
            self.page.evaluate("scrollTo(0, 0)")
            self.page.screenshot(path=folder / f"{name}-{self.look}.png", **more)

    def says(self, text: str, within: str = "main") -> None:
        """Wait until `within` shows `text`: a page goes on to another address a moment later."""
        from playwright.sync_api import expect

        expect(self.page.locator(within)).to_contain_text(text, timeout=TIMEOUT_MS)

    def check(self) -> None:
        """Raise AssertionError if anything was wrong."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is {wide} px wider than the screen"
        assert not self.faults, "; ".join(self.faults)

    def hear(self, message: Any) -> None:
        """What the page wrote to the console."""
        failed = "Failed to load resource" in message.text
        if failed and any(f"status of {status}" in message.text for status in self.expected):
            return
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")


@contextmanager
def open_browser() -> Iterator[Any]:
    """Chromium, closed at the end. Only where `needs_browser` lets a test run."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, url: str, look: str = "light") -> Iterator[Visit]:
    """`url` opened as `look` says (a key of LOOKS), in a context of its own; checked at the end."""
    context = browser.new_context(**LOOKS[look], reduced_motion="reduce", service_workers="block")
    context.set_default_timeout(TIMEOUT_MS)
    try:
        page = context.new_page()
        seen = Visit(page, look)
        origin = urlsplit(url)[:2]

        def on_request(request: Any) -> None:
            if urlsplit(request.url)[:2] != origin and not request.url.startswith("blob:"):
                seen.faults.append(f"a request off the origin: {request.url}")

        page.on("console", lambda message: seen.hear(message))
        page.on("pageerror", lambda error: seen.faults.append(f"page error: {error}"))
        page.on("request", on_request)
        page.goto(url)
        yield seen
        seen.check()
    finally:
        context.close()
