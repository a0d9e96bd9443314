"""A real browser before a real stack with planted trouble. Without a Chromium these tests are left out, and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from testkit.fake_server import FakeServer
from testkit.service import Servers, Service, make_database
from testkit.stage import CHROMIUM, KEY, QUIET, plant

# They come last in each list, and are never due.
MANY = 10_000
_MANY = f"""
    INSERT INTO sources (name, type, config, enabled, origin, next_run_at)
    SELECT 'z' || n, 'csv', jsonb_build_object('name', 'z' || n, 'type', 'csv', 'file', 'z.csv',
        'schedule', jsonb_build_object('every', '30m')), true, 'file', now() + interval '10 years'
    FROM generate_series(1, {MANY}) n"""


@dataclass
class Stage:
    """The service, the outside world, and where pages are."""

    service: Service
    server: FakeServer

    @property
    def url(self) -> str:
        return self.service.url


@pytest.fixture(scope="package")
def stage(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("stage")
    service = Service(servers, make_database(servers, "stage", template="migrated"), folder)
    service.flush_broker()
    with FakeServer() as server:
        try:
            plant(service, server)
            service.sql(_MANY)
            yield Stage(service, server)
        finally:
            service.stop_all()
            service.flush_broker()  # the breaker it opened must not be seen by who comes next


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: see make test-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def signed_in(chromium: Any, stage: Stage) -> Any:
    """The cookies of somebody who may do everything."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{stage.url}/ui/sign-in")
    page.fill("[name=key]", KEY)
    page.click("main button")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def visit(chromium: Any, stage: Stage, signed_in: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page, with what browsers can be: `theme`, `width`, `script`, and a `clock` that is set. Whatever goes wrong on it fails the test."""
    contexts, wrong = list[Any](), list[str]()

    def open_page(
        path: str = "/ui/overview", *, theme: str = "light", width: int = 1280, script: bool = True, clock: bool = False
    ) -> Any:
        context = chromium.new_context(
            color_scheme=theme,
            viewport={"width": width, "height": 900},
            java_script_enabled=script,
            storage_state=signed_in,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: wrong.append(request.url) if not request.url.startswith((stage.url, "data:")) else None,
        )
        if clock:
            page.clock.install()
        page.goto(stage.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
