"""Pages: each shows what the API answers, to whom it may be shown, as text, and bounded; each form calls the API."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from flask.testing import FlaskClient

from config.settings import PROJECT
from etl.access.keys import hash_key
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app
from web.ui.shown import ago, count, length, schedule, size

KEY = "k" * 32
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'>"
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}


class Browser:
    """A browser that knows only what pages say."""

    def __init__(self, runner: SourceRunner, *, signed_in: bool = True) -> None:
        self.runner = runner
        settings = replace(runner.settings, api_keys=(hash_key(KEY),))
        self.client: FlaskClient = create_app(settings, runner.database).test_client()
        if signed_in:
            assert self.post("/ui/sign-in", key=KEY).status_code == 303

    def get(self, path: str) -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        return answer.text

    def post(self, path: str, **form: Any) -> Any:
        return self.client.post(path, data=form, headers=OURS)

    def follow(self, path: str, **form: Any) -> str:
        """Send a form, and read the page that follows."""
        answer = self.post(path, **form)
        assert answer.status_code == 303, answer.text[:500]
        return self.get(answer.location)


@pytest.fixture
def world(runner: SourceRunner, fake_server: FakeServer) -> SourceRunner:
    """A source that goes well, one with rejects, one that fails, and one full of markup."""
    runner.settings = replace(runner.settings, allowed_private_hosts=("127.0.0.1",))
    api: dict[str, Any] = {"type": "api", "records": "@"}
    good = fake_server.json("/good", [{"id": n, "name": f"thing {n}", "price": n} for n in range(3)])
    mixed = fake_server.json("/mixed", [*({"id": n, "price": n} for n in range(9)), {"id": "x", "price": MARKUP}])
    wrong = fake_server.on("/wrong", Response(status=404, body=MARKUP.encode()))
    markup = fake_server.json("/markup", [{"id": MARKUP, "name": MARKUP, "note": {MARKUP: MARKUP}}])
    runner.declare(
        {"name": "good", **api, "request": {"url": good}, "tags": ["money"]},
        {"name": "mixed", **api, "request": {"url": mixed}},
        {"name": "wrong", **api, "request": {"url": wrong}},
        {"name": "markup", **api, "request": {"url": markup}},
    )
    for name in ("good", "mixed", "wrong", "markup"):
        runner.run(name)
    return runner


@pytest.fixture
def browser(world: SourceRunner) -> Browser:
    return Browser(world)


def addresses(world: SourceRunner) -> list[str]:
    """Every page that there is."""
    run = world.sql("SELECT run_id FROM etl_runs WHERE source_name = 'mixed'")[0]
    case = world.sql("SELECT id FROM rejected_records")[0]
    items = world.sql("SELECT id FROM unified_items WHERE source_name = 'markup'")
    tabs = ("", "/runs", "/data", "/rejects", "/mapping", "/schema", "/settings")
    return [
        *("/ui/overview", "/ui/sources", "/ui/runs", "/ui/errors", "/ui/rejects", "/ui/rejects/cases", "/ui/data"),
        *("/ui/replays", "/ui/hosts", "/ui/system", "/ui/alerts", "/ui/access", "/ui/account", "/ui/new-source"),
        *(f"/ui/sources/{name}{tab}" for name in ("good", "mixed", "wrong", "markup") for tab in tabs),
        *(f"/ui/runs/{run}", f"/ui/rejects/{case}", f"/ui/data/{items[0]}"),
    ]


def test_every_page_is_there_and_shows_what_others_said_as_text(world: SourceRunner, browser: Browser) -> None:
    for address in addresses(world):
        shown = browser.get(address)
        assert "<img" not in shown, address
        assert not re.search(r"<script(?! src=\"/ui/static/)", shown), address
        assert not re.search(r"\s(on\w+|style)=", re.sub(r"=\"[^\"]*\"|>[^<]*<", '=""><', shown)), address
        assert not re.search(r"javascript:", shown), address


def test_markup_is_there_as_text(world: SourceRunner, browser: Browser) -> None:
    item = world.sql("SELECT id FROM unified_items WHERE source_name = 'markup'")[0]
    for address in ("/ui/data", f"/ui/data/{item}", "/ui/sources/markup/data"):
        assert MARKUP in unescape(browser.get(address)), address


class _Outline(HTMLParser):
    """Fields without a name that is read out, and tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "input", "img", "br", "use", "rect"}:
            self.open.append(tag)
        named = dict(attrs)
        is_field = tag in {"select", "textarea"} or (tag == "input" and named.get("type") != "hidden")
        if is_field and "label" not in self.open and "aria-label" not in named:
            self.wrong.append(f"{tag} {named.get('name')}")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"use", "rect"}:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")


def test_every_page_is_well_formed_and_its_fields_have_names(world: SourceRunner, browser: Browser) -> None:
    for address in addresses(world):
        outline = _Outline()
        outline.feed(browser.get(address))
        assert (outline.wrong, outline.open) == ([], []), address


def test_every_link_leads_somewhere(world: SourceRunner, browser: Browser) -> None:
    found: set[str] = set()
    for address in addresses(world):
        found |= {unescape(link) for link in re.findall(r'href="(/[^"]*)"', browser.get(address))}
    # What is not a page has no session.
    browser.client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    for link in sorted(found):
        answer = browser.client.get(link, buffered=True)
        assert answer.status_code in {200, 302, 303}, link
        answer.close()


def test_a_slash_too_many_is_forgiven(browser: Browser) -> None:
    for address, there in (("/ui/", "/ui/overview"), ("/ui/sources/", "/ui/sources")):
        assert browser.client.get(address).location == there


def test_every_form_is_one_of_ours(world: SourceRunner, browser: Browser) -> None:
    router = browser.client.application.url_map.bind("localhost")
    for address in addresses(world):
        shown = browser.get(address)
        for action in re.findall(r'(?:form)?action="(/[^"]*)"', shown):
            assert router.match(unescape(action), "POST")[0].startswith("ui."), (address, action)


def test_pages_are_for_who_looks_from_this_machine_and_actions_for_who_signed_in(world: SourceRunner) -> None:
    nobody = Browser(world, signed_in=False)
    assert "Sign in" in nobody.get("/ui/overview")
    answer = nobody.post("/ui/sources/good/run")
    assert (answer.status_code, answer.location.split("?")[0]) == (303, "/ui/sign-in")
    for page in ("/ui/alerts", "/ui/access"):
        assert nobody.client.get(page).status_code == 303
    assert world.sql("SELECT count(*) FROM etl_runs") == [4]


def test_a_form_of_another_site_is_refused(browser: Browser) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
        answer = browser.client.post("/ui/sources/good/run", headers=headers)
        assert answer.status_code == 403


def test_a_source_is_run_paused_and_resumed(browser: Browser) -> None:
    assert "a run is queued" in browser.follow("/ui/sources/good/run")
    assert "is paused" in browser.follow("/ui/sources/mixed/pause")
    assert 'role="alert"' in browser.follow("/ui/sources/mixed/run")
    assert "runs again" in browser.follow("/ui/sources/mixed/resume")
    actions = browser.runner.sql(
        "SELECT action FROM audit_log WHERE action LIKE '%source%' OR action = 'start_runs' ORDER BY 1"
    )
    assert actions == ["pause_source", "resume_source", "start_runs"]


def test_what_the_api_refuses_is_said_on_the_page(browser: Browser) -> None:
    browser.follow("/ui/sources/good/run")
    assert 'role="alert"' in browser.follow("/ui/sources/good/run")
    assert browser.client.get("/ui/sources/nobody").status_code == 404
    assert browser.client.get("/ui/runs?status=sideways").status_code == 422
    assert browser.client.get("/ui/data?cursor=x").status_code == 422


def test_many_are_counted_before_something_is_done_to_them(browser: Browser) -> None:
    asked = browser.post("/ui/sources", action="pause", all="1", tags="money")
    assert (asked.status_code, "Pause 1 source?" in asked.text) == (200, True)
    assert browser.runner.sql("SELECT count(*) FROM sources WHERE paused_until IS NOT NULL") == [0]
    assert "done to 1 of 1" in browser.follow("/ui/sources", action="pause", all="1", tags="money", sure="1")
    answer = browser.client.post(
        "/ui/sources", data={"action": "pause", "sure": "1", "names": ["mixed", "wrong"]}, headers=OURS
    )
    assert answer.status_code == 303
    assert browser.runner.sql("SELECT name FROM sources WHERE paused_until IS NOT NULL ORDER BY 1") == [
        *("good", "mixed", "wrong"),
    ]


def test_rejects_are_redriven_and_put_away(browser: Browser) -> None:
    case = browser.runner.sql("SELECT id FROM rejected_records")[0]
    asked = browser.post("/ui/rejects/redrive", source_name="mixed", ids=case)
    assert "Drive 1 record again?" in asked.text
    assert "1 records are driven again" in browser.follow(
        "/ui/rejects/redrive", source_name="mixed", ids=case, sure="1"
    )
    assert "reason" in browser.follow("/ui/rejects/discard", source_name="mixed", ids=case, reason="")
    assert "1 records are put away" in browser.follow(
        "/ui/rejects/discard", source_name="mixed", ids=case, reason="known"
    )
    assert browser.runner.sql("SELECT state, reason FROM rejected_records") == [("discarded", "known")]


def test_a_source_is_made_of_an_address(browser: Browser, fake_server: FakeServer) -> None:
    url = fake_server.json("/shop", {"result": [{"sku": f"a{n}", "label": f"thing {n}", "cost": n} for n in range(4)]})
    shown = browser.post("/ui/new-source/preview", url=url)
    assert shown.status_code == 200
    assert "4 records" in shown.text
    document = unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", shown.text, re.DOTALL)[1])  # type: ignore[index]
    assert "records: result" in document
    wrong = browser.post("/ui/new-source/save", document="type: api")
    assert 'role="alert"' in wrong.text
    mended = document + "\nidentity: content\n" if "external_id" not in document else document
    page = browser.follow("/ui/new-source/save", document=mended)
    assert "this is its first run" in page
    name = browser.runner.sql("SELECT name FROM sources WHERE origin = 'api'")[0]
    assert "Change it" in browser.get(f"/ui/sources/{name}/settings")
    version = re.search(r'name="version" value="(\d+)"', browser.get(f"/ui/sources/{name}/edit"))[1]  # type: ignore[index]
    text = mended + "\ntags: [new]\n"
    changed = browser.follow("/ui/new-source/save", document=text, name=name, version=version, every="1h")
    assert "#new" in changed
    assert "every 1 h" in changed
    # Who had it open meanwhile does not undo that.
    late = browser.post("/ui/new-source/save", document=mended, name=name, version=version)
    assert "somebody has changed it meanwhile" in late.text
    assert "there is a source of this name" in browser.post("/ui/new-source/save", document=mended).text


def test_a_key_is_made_shown_once_and_revoked(browser: Browser) -> None:
    made = browser.post("/ui/access/keys", name="grafana", role="read").text
    assert re.search(r"<code>krl?_|<pre><code>", made)
    again = browser.get("/ui/access")
    assert "<pre><code>" not in again
    number = browser.runner.sql("SELECT key_id FROM api_keys")[0]
    assert "is refused from now on" in browser.follow(f"/ui/access/keys/{number}/revoke")


def test_a_page_that_has_not_changed_is_not_sent_again(browser: Browser) -> None:
    first = browser.client.get("/ui/account")
    again = browser.client.get("/ui/account", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_theme_is_kept_by_the_browser(browser: Browser) -> None:
    assert "data-theme" not in browser.get("/ui/account")
    browser.client.get("/ui/theme?to=dark")
    assert 'data-theme="dark"' in browser.get("/ui/account")
    browser.client.get("/ui/theme?to=purple")
    assert 'data-theme="dark"' in browser.get("/ui/account")


def test_scripts_are_small_and_styles_few() -> None:
    import gzip

    scripts = [*(PROJECT / "web" / "static").rglob("*.js")]
    assert sum(len(gzip.compress(one.read_bytes())) for one in scripts) < 60 * 1024
    own = (PROJECT / "web" / "static" / "ui.js").read_text()
    assert len(own.splitlines()) <= 200


def test_how_values_look() -> None:
    assert [length(value) for value in (0.0123, 0.9, 75, 3600, 90_000, 200_000)] == [
        *("12 ms", "0.9 s", "1 min 15 s", "1 h", "1 d 1 h", "2 d 7 h"),
    ]
    assert (count(1234567), count(None)) == ("1\u2009234\u2009567", "–")
    assert [size(value) for value in (0, 1023, 1536, 5 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    assert schedule({"cron": "0 6 * * 1", "timezone": "Europe/Berlin"}) == "at 06:00, only on Monday (Europe/Berlin)"
    assert schedule({"every": "90m"}) == "every 1 h 30 min"
    assert "never" in ago(None)


def test_nothing_is_put_away_that_was_not_chosen(browser: Browser) -> None:
    for path in ("discard", "redrive"):
        assert "Choose some records first" in browser.follow(f"/ui/rejects/{path}", source_name="mixed", reason="x")
    assert browser.runner.sql("SELECT DISTINCT state FROM rejected_records") == ["open"]


def test_nothing_is_done_to_sources_that_were_not_chosen(browser: Browser) -> None:
    assert "Choose some sources" in browser.follow("/ui/sources", action="pause")
    asked = browser.post("/ui/sources", action="pause", all="1", names="good")
    assert "Pause 4 sources?" in asked.text
    assert 'name="all" value="1"' in asked.text
    assert 'name="names"' not in asked.text


def test_a_time_of_a_form_is_utc(browser: Browser) -> None:
    browser.post("/ui/sources", action="pause", names="good", until="2999-01-02T03:04", sure="1")
    assert browser.runner.sql("SELECT paused_until::text FROM sources WHERE name = 'good'") == [
        "2999-01-02 03:04:00+00"
    ]


def test_the_rejects_of_one_run(browser: Browser) -> None:
    runs = browser.runner.sql(
        "SELECT run_id::text FROM etl_runs WHERE source_name IN ('good', 'mixed') ORDER BY source_name"
    )
    shown = [browser.get(f"/ui/rejects/cases?run_id={run}") for run in runs]
    assert ["No record matches" in one for one in shown] == [True, False]


def test_a_plan_is_replayed_as_it_was_planned(browser: Browser) -> None:
    answer = browser.post("/ui/replays", source_name="good", since="2020-01-01", dry_run="1")
    assert answer.status_code == 303
    assert 'name="since" value="2020-01-01T00:00:00+00:00"' in browser.get(answer.location)
    wrong = browser.post("/ui/replays", source_name="good", since="garbage")
    assert (wrong.status_code, 'value="garbage"' in wrong.text) == (422, True)


def test_columns_are_kept_from_page_to_page(browser: Browser) -> None:
    browser.runner.sql("""
        INSERT INTO unified_items (source_type, source_name, external_id, title, raw_data_id, raw_ingested_at, run_id,
            content_hash, mapping_version)
        SELECT 'csv', 'good', 'more' || n, 't', 1, now(), gen_random_uuid(), '\\x00', 1 FROM generate_series(1, 60) n""")
    shown = browser.get("/ui/data?columns=title&columns=amount")
    link = unescape(re.search(r'rel="next" href="([^"]+)"', shown)[1])  # type: ignore[index]
    assert link.startswith("/ui/data?columns=title&columns=amount&cursor=")


def test_what_is_shown_is_exported_where_a_session_counts(browser: Browser) -> None:
    answer = browser.client.get("/ui/data/export?format=csv&source_name=good&columns=title,amount", buffered=True)
    assert answer.text.splitlines() == ["title,amount", "thing 0,0", "thing 1,1", "thing 2,2"]
    answer.close()
    assert browser.client.get("/ui/data/export?format=xml").status_code == 422


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"url": "http://["}, "that is no address"),
        ({"url": "shop.example/items"}, "did you mean http://shop.example/items"),
        ({"url": "http://a.example/", "auth": "bearer", "secret": KEY[:5]}, "not the key itself"),
        ({"document": "- no\n- source"}, "expected the keys of one source"),
        ({"document": "a: [1"}, "line"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(browser: Browser, form: dict[str, str], said: str) -> None:
    shown = browser.post("/ui/new-source/preview", **form)
    assert shown.status_code == 200
    assert said in unescape(shown.text)


def test_a_source_that_is_saved_and_does_not_run_says_both(browser: Browser, fake_server: FakeServer) -> None:
    url = fake_server.json("/more", [])
    document = f"{{name: more, type: api, enabled: false, records: '@', request: {{url: '{url}'}}}}"
    shown = browser.follow("/ui/new-source/save", document=document)
    assert "more is saved, but does not run yet" in shown
    assert 'role="alert"' in shown


@pytest.mark.parametrize("path", ["/ui/sources/%00", "/sources/%00", "/ui/nowhere", "/ui/runs/1"])
def test_what_there_is_not(browser: Browser, path: str) -> None:
    assert browser.client.get(path).status_code == 404
