"""Secrets are planted in every place that may hold one, and said back by servers in every way: nobody is shown them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from config import logs
from etl import secrets
from etl.declare.request import Request as DeclaredRequest
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter, LocalHostStates
from etl.http.target import target_of
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner
from web.app import create_app

Way = Callable[[FakeServer, str], dict[str, Any]]
# What stands for the name of the secret in a declaration.
NAMED = "${PLANTED}"
WAYS: dict[str, Way] = {}


def way(make: Way) -> Way:
    """A source whose server says the secret back; its answers are good unless it is named `…_fails`."""
    WAYS[make.__name__] = make
    return make


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    secrets.know({})


def header(url: str) -> dict[str, Any]:
    return {"url": url, "auth": {"kind": "header", "name": "X-Key", "value": NAMED}}


def reason(text: str, status: int = 403, **headers: str) -> Response:
    def answer(handler: Any) -> None:
        handler.send_response(status, text)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return Response(raw=answer)


def pages(server: FakeServer, path: str, link: Callable[[Request], Any]) -> str:
    """Two pages; the first leads to the second by what `link` says."""

    def answer(asked: Request) -> Response:
        is_first = asked.query.get("page") != "2" and not asked.path.endswith("/2")
        return as_json({"items": [{"id": 1 if is_first else 2}], "next": link(asked) if is_first else None})

    return server.on(path, answer)


@way
def header_in_a_reason_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", reason(f"the key {value} has expired")))}


@way
def header_in_an_error_page_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", Response(value.encode() * 3, 400)))}


@way
def bearer_in_a_reason_fails(server: FakeServer, value: str) -> dict[str, Any]:
    url = server.on("/a", reason(f"no Bearer {value}", 401))
    return {"request": {"url": url, "auth": {"kind": "bearer", "token": NAMED}}}


@way
def password_packed_in_a_reason_fails(server: FakeServer, value: str) -> dict[str, Any]:
    packed = base64.b64encode(f"user:{value}".encode()).decode()
    url = server.on("/a", reason(f"cannot read Basic {packed}", 401))
    return {"request": {"url": url, "auth": {"kind": "basic", "username": "user", "password": NAMED}}}


@way
def literal_header_in_a_reason_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": {"url": server.on("/a", reason(f"{value} is unknown")), "headers": {"Cookie": f"sid={NAMED}"}}}


@way
def query_in_a_redirect(server: FakeServer, value: str) -> dict[str, Any]:
    server.json("/new", [{"id": 1}])
    moved = Response(status=301, headers={"Location": f"/new?key={quote(value)}&again={quote(value, safe='')}"})
    return {"request": {"url": server.on("/a", moved), "auth": {"kind": "query", "name": "key", "value": NAMED}}}


@way
def query_in_a_loop_of_redirects_fails(server: FakeServer, value: str) -> dict[str, Any]:
    loop = Response(status=302, headers={"Location": f"/a?{value}"})
    return {"request": {"url": server.on("/a", loop), "params": {"key": NAMED}}}


@way
def path_that_is_not_found_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": {"url": f"{server.url}/{NAMED}/items"}}


@way
def parameter_in_the_next_link(server: FakeServer, value: str) -> dict[str, Any]:
    url = pages(server, "/a", lambda _: f"/a?key={quote(value, safe='')}&page=2")
    paginate = {"style": "next_url", "next": "next"}
    return {"request": {"url": url, "params": {"key": NAMED}}, "records": "items", "paginate": paginate}


@way
def header_in_the_path_of_the_next_link(server: FakeServer, value: str) -> dict[str, Any]:
    server.json(f"/{quote(value, safe='')}/2", {"items": [{"id": 2}]})
    server.json(f"/{value}/2", {"items": [{"id": 2}]})
    url = pages(server, "/a", lambda _: f"/{quote(value, safe='')}/2")
    return {"request": header(url), "records": "items", "paginate": {"style": "next_url", "next": "next"}}


@way
def header_in_a_link_header(server: FakeServer, value: str) -> dict[str, Any]:
    def answer(asked: Request) -> Response:
        link = f'</a?page=2&was={quote(value, safe="")}>; rel="next"'
        second = asked.query.get("page") == "2"
        assert asked.query.get("was") in {None, value}
        return Response(b'[{"id": 2}]' if second else b'[{"id": 1}]', headers={} if second else {"Link": link})

    return {"request": header(server.on("/a", answer)), "paginate": {"style": "link_header"}}


@way
def header_in_a_cursor(server: FakeServer, value: str) -> dict[str, Any]:
    def answer(asked: Request) -> Response:
        assert asked.query.get("at") in {None, f"{value}-2"}
        second = "at" in asked.query
        return as_json({"items": [{"id": 1 + second}], "next": None if second else f"{value}-2"})

    paginate = {"style": "cursor", "next": "next", "param": "at"}
    return {"request": header(server.on("/a", answer)), "records": "items", "paginate": paginate}


@way
def header_in_a_broken_link_fails(server: FakeServer, value: str) -> dict[str, Any]:
    url = pages(server, "/a", lambda _: f"http://[{value}")
    return {"request": header(url), "records": "items", "paginate": {"style": "next_url", "next": "next"}}


@way
def header_in_the_marks_of_an_answer(server: FakeServer, value: str) -> dict[str, Any]:
    headers = {"ETag": f'"{value}"', "Last-Modified": value}
    return {"request": header(server.on("/a", Response(b'[{"id": 1}]', headers=headers)))}


@way
def header_in_the_encoding_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", Response(b"[]", headers={"Content-Encoding": value})))}


@way
def header_in_what_is_not_json_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", Response(f"your key is {value}, is it not?".encode())))}


@way
def header_cut_off_in_what_is_not_json_fails(server: FakeServer, value: str) -> dict[str, Any]:
    # The message shows eighty bytes.
    return {"request": header(server.on("/a", Response(b"x" * (80 - len(value) + 3) + value.encode() + b"!")))}


@way
def header_where_one_is_asked_to_wait_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", reason(f"{value}: slow down", 429, Retry_After="9000")))}


@way
def header_where_all_is_gone_fails(server: FakeServer, value: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", reason(f"{value} is gone", 410)))}


@way
def client_secret_in_a_reason_fails(server: FakeServer, value: str) -> dict[str, Any]:
    token_url = server.on("/token", reason(f"{value} is not the secret of this client", 401))
    auth = {"kind": "oauth2_client_credentials", "token_url": token_url, "client_id": "me", "client_secret": NAMED}
    return {"request": {"url": server.json("/a", []), "auth": auth}}


@way
def token_in_the_next_link(server: FakeServer, value: str) -> dict[str, Any]:
    token_url = server.json("/token", {"access_token": value})
    auth = {"kind": "oauth2_client_credentials", "token_url": token_url, "client_id": "me", "client_secret": "x"}
    url = pages(server, "/a", lambda _: f"/a?access_token={value}&page=2")
    request = {"url": url, "auth": auth}
    return {"request": request, "records": "items", "paginate": {"style": "next_url", "next": "next"}}


@way
def address_of_a_feed(server: FakeServer, value: str) -> dict[str, Any]:
    feed = b"<rss><channel><item><guid>1</guid><title>t</title><link>story</link></item></channel></rss>"
    server.on(f"/{value}/feed", Response(feed))
    return {"type": "rss", "request": {"url": NAMED}}


def value_for(name: str, server: FakeServer) -> tuple[str, str]:
    """The secret of a way, and what of it must not be seen."""
    if name == "address_of_a_feed":
        return f"{server.url}/open-sesame-{name}/feed", f"open-sesame-{name}"
    odd = "" if "encoding" in name or "marks" in name or "token" in name else " & more/"
    return f"open-sesame{odd}-{name}", f"open-sesame{odd}-{name}"


def everything(runner: SourceRunner, states: LocalHostStates) -> Iterator[tuple[str, str]]:
    """All that is stored, and all that the API answers."""
    tables = (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    for table in runner.sql(tables):
        for row in runner.sql(f"SELECT t::text FROM {table} t"):
            yield table, str(row)
    client = create_app(runner.settings, runner.database).test_client()
    runs = [run["run_id"] for run in client.get("/runs").get_json()["runs"]]
    for path in ("/runs", "/health", "/stats", "/data", "/breakers", *(f"/runs/{run_id}" for run_id in runs)):
        yield path, client.get(path).get_data(as_text=True)
    yield "hosts", repr(vars(states))


@pytest.mark.parametrize("name", WAYS)
def test_no_secret_is_shown_or_stored(
    runner: SourceRunner, fake_server: FakeServer, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    value, hidden = value_for(name, fake_server)
    environment = {**runner.settings.environment, "PLANTED": value}
    runner.settings = replace(runner.settings, environment=environment, max_retries=1, log_level="DEBUG")
    states = LocalHostStates()
    runner.limiter = HostLimiter(states, BreakerPolicy(1, 60), "test")
    logs.configure(runner.settings)
    runner.declare({"name": "planted", "type": "api", **WAYS[name](fake_server, hidden)})
    run = runner.run("planted")
    if name.endswith("_fails"):
        assert run["error"] is not None
    else:
        assert run["status"] == "success", run
        pages_read = 1 if name.startswith(("query", "header_in_the_marks", "address")) else 2
        assert runner.sql("SELECT count(*) FROM unified_items") == [pages_read]
    packed = base64.b64encode(f"user:{hidden}".encode()).decode()
    forms = {hidden, quote(hidden), quote(hidden, safe=""), json.dumps(hidden)[1:-1], packed, hidden[:9]}
    written = capfd.readouterr()
    for place, text in [*everything(runner, states), ("log", written.out + written.err)]:
        for form in forms:
            assert form not in text, (place, form)


def test_a_secret_is_left_out_however_it_is_written() -> None:
    secrets.know({"KEY": 'a/b&"c" d'})
    for said in ('a/b&"c" d', "a%2Fb%26%22c%22%20d", "a%2Fb%26%22c%22+d", 'a/b&\\"c\\" d', "a/b&amp;&quot;c&quot; d"):
        assert secrets.hide(f"<{said}>") == "<${KEY}>"


def test_short_values_and_what_was_never_a_secret_stay() -> None:
    secrets.know({"USER": "abc", "KEY": "abcdefgh"})
    assert secrets.hide("abc abcde abcdefg.") == "abc abcde ${KEY}."
    secrets.know({})
    assert secrets.hide("abcdefgh") == "abcdefgh"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://a.test/x", {"Authorization", "X-Version", "Accept", "X-Key"}),
        ("https://a.test/x", {"X-Version", "Accept"}),
        ("http://b.test/x", {"Accept"}),
        ("http://a.test:81/x", {"X-Version", "Accept"}),
    ],
)
def test_what_says_who_asks_stays_with_its_origin(url: str, sent: set[str]) -> None:
    headers = {"Authorization": "Basic abc", "X-Version": "2", "Accept": "text/csv", "X-Key": "${KEY}"}
    target = target_of(DeclaredRequest("http://a.test/", headers=headers), {"KEY": "value"})
    assert set(target.headers_for(url)) == sent


def test_addresses_of_services_are_no_secrets() -> None:
    target = target_of(DeclaredRequest("${BASE}/a/feed"), {"BASE": "http://a.test:81"})
    assert target.base(target.url) == "http://a.test:81/a/feed"
    assert target.conceal(target.url) == target.url
