"""Somebody new, with the address and a link that signs in: no documentation, no shell."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from testkit.fake_server import as_json
from testkit.stage import link
from tests.browser.conftest import Stage

Visit = Callable[..., Any]
RECORDS = [{"sku": f"a{n}", "label": f"thing {n}", "cost": n} for n in range(4)] + [
    {"sku": "z", "label": "odd", "cost": "12 €"}
]


@pytest.mark.parametrize("script", [True, False])
def test_from_a_link_to_a_mended_record(stage: Stage, chromium: Any, script: bool) -> None:
    path = f"/kiosk{int(script)}"
    stage.server.on(path, as_json({"result": RECORDS}))
    page = chromium.new_context(java_script_enabled=script).new_page()
    # The link signs in.
    page.goto(link(stage.service))
    page.click("main button")
    # A source from its address: preview, save.
    page.click("text=New source")
    page.fill("[name=url]", stage.url.rpartition(":")[0] + f":{stage.server.port}{path}")
    page.click("button:has-text('Preview')")
    assert "5 fit, 0 rejected" in page.locator("main").inner_text()
    document = page.locator("textarea").input_value()
    assert "records: result" in document
    # One more field is mapped, which does not fit everywhere.
    page.fill("textarea", document.replace("  title: label", "  title: label\n  amount: cost"))
    page.click("button:has-text('Preview again')")
    assert "4 fit, 1 rejected" in page.locator("main").inner_text()
    name = re.search(r"name: (\w+)", document)[1]  # type: ignore[index]
    page.click("button:has-text('Save, and run it')")
    assert "first run" in page.locator("main").inner_text()
    run = page.url.rpartition("/")[2]
    stage.service.await_end(run)
    # Its data.
    page.goto(f"{stage.url}/ui/sources/{name}")
    page.click(".tabs >> text=Data")
    assert "thing 3" in page.locator("main").inner_text()
    # The rejected record, and why.
    page.click(".tabs >> text=Rejects")
    page.click("main table a >> nth=1")
    assert "12 €" in page.locator("main").inner_text()
    # The mapping is mended, and the record driven again.
    page.goto(f"{stage.url}/ui/sources/{name}/settings")
    page.click("text=Change it")
    page.fill("textarea", page.locator("textarea").input_value().replace("  amount: cost\n", ""))
    page.click("main button:has-text('Save')")
    page.goto(f"{stage.url}/ui/rejects?source_name={name}")
    page.click("button:has-text('Redrive …')")
    page.click("main button:has-text('Redrive')")
    stage.service.await_end(page.url.rpartition("/")[2])
    page.goto(f"{stage.url}/ui/rejects?source_name={name}")
    assert "No rejected record is open." in page.locator("main").inner_text()
    page.context.close()


def test_why_another_source_is_late_is_two_clicks_away(visit: Visit) -> None:
    page = visit("/ui/overview")
    page.click(".tile:has-text('late')")
    page.click("main table a:has-text('late')")
    assert "Why?" in page.locator("main").inner_text()


def test_a_used_link_signs_nobody_in(stage: Stage, chromium: Any) -> None:
    address = link(stage.service)
    for expected in (False, True):
        page = chromium.new_context().new_page()
        page.goto(address)
        page.click("main button")
        assert ("was used" in page.locator("main").inner_text()) is expected
        page.context.close()
