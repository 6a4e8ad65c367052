"""A real browser, for the pages that the tool writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PATIENCE = 300_000  # milliseconds: how long a page may take on a busy machine; nobody waits for it on an idle one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, without a window; a module's own, since its event loop would disturb others."""
    if CHROMIUM is None:  # it comes with the machine, not with pip
        pytest.skip("no chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def new_tab(browser: Browser) -> Callable[..., Page]:
    """Opens an empty page, with the options of ``Browser.new_page``; everything done with it has patience."""

    def opened(**options: Any) -> Page:
        tab = browser.new_page(**options)
        tab.set_default_timeout(PATIENCE)
        return tab

    return opened
