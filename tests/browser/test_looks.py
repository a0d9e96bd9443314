"""What every page is like in a browser: whole, readable to everybody, and quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest

from tests.browser.conftest import MANY, Stage

PAGES = (
    *(
        "overview",
        "sources",
        "sources/mixed",
        "sources/late",
        "sources/aside",
        "sources/mixed/runs",
        "sources/shop/data",
    ),
    *("sources/mixed/rejects", "sources/mixed/mapping", "sources/mixed/schema", "sources/mixed/settings", "new-source"),
    *(
        "runs",
        "errors",
        "rejects",
        "rejects/cases?source_name=mixed",
        "data",
        "replays",
        "hosts",
        "system",
        "alerts",
        "access",
    ),
)
Visit = Callable[..., Any]
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_is_wider_than_a_telephone(visit: Visit, theme: str) -> None:
    for path in PAGES:
        page = visit(f"/ui/{path}", theme=theme, width=360)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
        page.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_keeps_anybody_from_using_a_page(visit: Visit, theme: str) -> None:
    for path in PAGES:
        page = visit(f"/ui/{path}", theme=theme)
        # Beside the page's own policy, under which no script runs that is not a file of ours.
        found = page.evaluate(AXE.read_text() + "; axe.run(document)")
        serious = [
            (one["id"], [node["html"] for node in one["nodes"][:2]])
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
        ]
        assert serious == [], path
        page.context.close()


def test_markup_of_sources_is_text(visit: Visit, stage: Stage) -> None:
    item = stage.service.sql("SELECT id FROM unified_items WHERE source_name = 'markup'")[0]
    for path in ("data", f"data/{item}", "sources/markup/data", "sources/wrong", "runs"):
        page = visit(f"/ui/{path}")
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        assert page.locator("main img, main script").count() == 0
    assert "<script>alert(2)</script>" in visit("/ui/data?source_name=markup").locator("main").inner_text()


def test_times_are_those_of_who_looks_and_can_be_utc(visit: Visit) -> None:
    page = visit("/ui/sources/shop")
    assert page.locator("#zone").inner_text() != ""
    page.click("#zone")
    assert page.locator("#zone").inner_text() == "UTC"


def polls(page: Any) -> list[str]:
    """What is asked for from now on."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    return asked


def test_a_live_part_is_asked_for_again_unless_that_is_paused(visit: Visit) -> None:
    page = visit("/ui/overview", clock=True)
    asked = polls(page)
    page.clock.run_for(16_000)
    page.wait_for_timeout(500)
    assert len(asked) == 1
    page.click("#pause")
    page.clock.run_for(60_000)
    page.wait_for_timeout(500)
    assert len(asked) == 1


def test_an_answer_that_is_another_page_leaves_the_live_part(visit: Visit) -> None:
    page = visit("/ui/overview", clock=True)
    other = {"content_type": "text/html", "body": "<main>Sign in</main>"}
    page.route("**/ui/overview*", lambda route: route.fulfill(**other))
    asked = polls(page)
    page.clock.run_for(16_000)
    page.wait_for_timeout(500)
    assert len(asked) >= 1
    assert page.locator("#live h1").count() == 1
    page.unroute("**/ui/overview*")
    page.clock.run_for(16_000)
    page.wait_for_timeout(500)
    assert page.locator("#live h1").count() == 1


def test_keys_lead_to_pages(visit: Visit) -> None:
    page = visit("/ui/overview")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url("**/ui/runs")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "source_name"


def test_every_action_is_reached_by_the_keyboard(visit: Visit) -> None:
    page = visit("/ui/sources/mixed")
    names = set[str]()
    for _ in range(60):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.textContent.trim()"))
    assert {"Run now", "Pause", "Replay", "Runs", "Mapping", "Settings"} <= names


def test_ten_thousand_sources_are_a_page_at_a_time(visit: Visit) -> None:
    page = visit("/ui/sources")
    assert page.locator(".chips").inner_text().replace("\u2009", "").startswith(f"all {MANY + 10}")
    assert page.locator("main tbody tr").count() == 50
    page.click("[rel=next]")
    assert page.locator("main tbody tr").first.locator("a").first.inner_text().startswith("z")
    page.fill("[name=name]", "z9999")
    page.click("button:has-text('Filter')")
    assert page.locator("main tbody tr").count() == 1


def test_what_was_chosen_is_not_lost_by_refreshing(visit: Visit) -> None:
    page = visit("/ui/sources?name=mixed", clock=True)
    page.check("[name=names]")
    asked = polls(page)
    page.clock.run_for(16_000)
    page.wait_for_timeout(500)
    assert (page.is_checked("[name=names]"), asked) == (True, [])
