"""A real browser: the system's Chromium. Without one these tests are skipped, or fail under REQUIRE_BROWSER=1."""

import os
import shutil
from collections.abc import Iterator

import pytest
from django.db import connection
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.showcase import Showcase

# On a busy machine the usual five seconds are too few.
PATIENCE_MILLISECONDS = 60_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# The browser lives for a module: Playwright runs an event loop in this thread, where other tests use the ORM.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        complaint = "No Chromium was found. On Debian: apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(complaint)
        pytest.skip(complaint)
    with sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        # Playwright's loop only waits for the browser here, but to Django it looks like async code that calls the ORM.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        # While that loop runs, the ORM has a connection of its own, which nothing else would close.
        connection.close()
        browser.close()


@pytest.fixture
def page(chromium: Browser, server) -> Iterator[Page]:
    """Open a new browser window on the server, 1440 pixels wide. An error in its scripts fails the test."""
    context = chromium.new_context(
        base_url=server.url, viewport={"width": 1440, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture(scope="session")
def showcase(server, provider) -> Showcase:
    return Showcase(server, provider)
