"""Chromium, and a visitor in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from benchmarks.screenshots import FLAGS, chromium

# Two cores run the page, its model and Chromium: what takes a moment elsewhere may take seconds.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("needs Chromium: install it, or name it in $CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser) -> Iterator[BrowserContext]:
    """One cache for all visitors of a file: gradio's scripts are fetched and compiled once."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context, server, request) -> Iterator[Page]:
    """A fresh visitor; an error in the console or a failed request fails the test."""
    options = getattr(request, "param", {})
    page = context.new_page()
    page.set_viewport_size(options.get("viewport", {"width": 1440, "height": 900}))
    page.set_default_timeout(90_000)
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("requestfailed", lambda r: errors.append(r.url) if not r.url.startswith(server) else None)
    page.goto(server + f"?__theme={options.get('theme', 'light')}{options.get('link', '&view=ask')}")
    page.locator("#document:visible, #map-sentence p:visible, #see .hero-sentence:visible:not(:empty)").first.wait_for()
    expect(page.locator("#first")).to_have_count(0)
    yield page
    page.evaluate("localStorage.clear()")
    for one in context.pages:
        one.close()
    assert errors == []
