"""Browsers without scripts: an HTTP client with cookies that asks for pages."""

from collections.abc import Callable, Iterator

import httpx2
import pytest

from paced import Client, wire
from tests.app.conftest import lite_service, make_world, shared_client, shared_clock, shared_service  # noqa: F401
from tests.service import ADMIN_KEY, Service

PAGE = {"Accept": "text/html"}
OpenBrowser = Callable[..., httpx2.Client]


@pytest.fixture
def open_browser(shared_service: Service) -> Iterator[OpenBrowser]:  # noqa: F811
    """Sign in with a key, the admin's by default; None stays outside."""
    opened = []

    def sign_in(key: str | None = ADMIN_KEY) -> httpx2.Client:
        browser = httpx2.Client(base_url=shared_service.url, headers=PAGE, follow_redirects=False)
        opened.append(browser)
        if key is not None:
            assert browser.post("/sign-in", data={"key": key}).status_code == 303
        return browser

    yield sign_in
    for browser in opened:
        browser.close()


@pytest.fixture
def browser(open_browser: OpenBrowser) -> httpx2.Client:
    """One with the admin's key."""
    return open_browser()


@pytest.fixture
def key_of(shared_client: Client) -> Callable[..., wire.KeyCreated]:  # noqa: F811
    def make(*scopes: wire.Scope) -> wire.KeyCreated:
        return shared_client.create_key(wire.KeyCreate(name="someone", scopes=list(scopes)))

    return make
