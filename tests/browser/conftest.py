"""Debian's Chromium, and pages of it that note what they should not do."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from benchmarks.browsing import FLAGS, find_chromium
from tests.app.conftest import MakeWorld, make_world, shared_client, shared_clock, shared_service  # noqa: F401
from tests.app.world import World
from tests.browser.filling import fill
from tests.service import ADMIN_KEY, Service


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Of one module: while Playwright is at work, no other event loop may run in its thread."""
    found = find_chromium()
    if found is None:
        pytest.skip("needs Chromium: install it (Debian: apt-get install chromium) or set PACED_TEST_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Seen:
    """A page, and what it complained of or asked other hosts for."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def wait_for_figures(self) -> None:
        self.wait_until("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")

    def wait_until(self, script: str, timeout_s: float = 20.0) -> None:
        """Ask from outside: under its policy a page may not evaluate texts, as Playwright's own waiting does."""
        over = time.monotonic() + timeout_s
        while not self.page.evaluate(script):
            assert time.monotonic() < over, f"{script} never came true"
            self.page.wait_for_timeout(50)


OpenPage = Callable[..., Seen]


@pytest.fixture
def open_page(chromium: Browser, shared_service: Service) -> Iterator[OpenPage]:  # noqa: F811
    """A page signed in as the admin; at the end none has complained or left the machine."""
    opened: list[Seen] = []

    def make(
        theme: str = "light", width: int = 1280, key: str | None = ADMIN_KEY, url: str | None = None, **options: object
    ) -> Seen:
        size = ViewportSize(width=width, height=800)
        context = chromium.new_context(viewport=size, color_scheme=theme, **options)  # type: ignore[arg-type]
        seen = Seen(context.new_page(), url or shared_service.url)
        host = urlsplit(seen.url).netloc
        seen.page.on("console", lambda said: said.type in {"error", "warning"} and seen.complaints.append(said.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("request", lambda sent: note_stranger(seen, host, sent.url))
        opened.append(seen)
        if key is not None:
            seen.open("/sign-in")
            seen.page.fill("[name=key]", key)
            seen.page.click("button.strong")
        return seen

    yield make
    for seen in opened:
        seen.page.context.close()
    assert [seen.complaints for seen in opened if seen.complaints] == []
    assert [seen.strangers for seen in opened if seen.strangers] == []


def note_stranger(seen: Seen, host: str, address: str) -> None:
    if urlsplit(address).scheme not in {"data", "blob"} and urlsplit(address).netloc != host:
        seen.strangers.append(address)


@pytest.fixture(scope="module")
def filled(
    shared_service: Service,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A world with something on every page."""
    folder: Path = tmp_path_factory.mktemp("problems")
    with shared_service.client() as client:
        yield fill(shared_service, client, folder)
