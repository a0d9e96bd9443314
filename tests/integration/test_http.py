"""HTTP as the extractors use it, against a server of our own."""

from __future__ import annotations

import gzip
import io
import socket
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from etl.errors import ETLError, FetchError, PostponedError, RefusedError, ScratchError, WaitError
from etl.http.address import is_allowed
from etl.http.freshness import freshness
from etl.http.status import pause_asked
from etl.http.target import PreparedRequest
from etl.records import Position
from etl.secrets import know
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.reading import Recorder, read, records


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(fake_server: FakeServer, tmp_path: Path, status: int) -> None:
    url = fake_server.on("/a", [Response(status=status), Response(status=status), as_json([{"id": 1}])])
    seen = Recorder()
    assert records(read({"type": "api", "request": {"url": url}}, seen.client(), tmp_path)) == [{"id": 1}]
    assert len(fake_server.asked) == 3
    assert [0.5 <= seen.slept[0] <= 1, 1 <= seen.slept[1] <= 2] == [True, True]


def test_tries_end(fake_server: FakeServer, tmp_path: Path) -> None:
    seen = Recorder()
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": fake_server.on("/a", Response(status=503))}}, seen.client(), tmp_path)
    assert caught.value.code == "http_503"
    assert len(fake_server.asked) == 4
    assert len(seen.waits) == 3


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json", b'{"error":\n "quota used up"}', ': {"error": "quota used up"}'),
        ("application/problem+json; charset=utf-8", b"[1]", ": [1]"),
        ("text/plain", b"x" * 100_000, ": " + "x" * 200),
        ("text/plain", b"the key topsecretvalue is wrong", ": the key ${KEY} is wrong"),
        ("text/html", b"<html>no</html>", ""),
        ("application/json", b"", ""),
    ],
)
def test_a_refusal_says_what_the_server_said(fake_server: FakeServer, kind: str, body: bytes, said: str) -> None:
    url = fake_server.on("/a", Response(body, 401, {"Content-Type": kind}))
    know({"KEY": "topsecretvalue"})
    with pytest.raises(RefusedError) as refusal:
        Recorder().client().get(PreparedRequest(url, url), 5)
    know({})
    assert refusal.value.message.endswith("401 Unauthorized" + said)
    assert refusal.value.status == 401


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(fake_server: FakeServer, tmp_path: Path, status: int) -> None:
    seen = Recorder()
    with pytest.raises(RefusedError) as caught:
        read(
            {"type": "api", "request": {"url": fake_server.on("/a", Response(status=status))}}, seen.client(), tmp_path
        )
    assert caught.value.code == f"http_{status}"
    assert len(fake_server.asked) == 1


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"X-RateLimit-Remaining": "0"}])
def test_a_403_that_limits_the_rate_is_tried_again(
    fake_server: FakeServer, tmp_path: Path, headers: dict[str, str]
) -> None:
    url = fake_server.on("/a", [Response(status=403, headers=headers), as_json([])])
    seen = Recorder()
    read({"type": "api", "request": {"url": url}}, seen.client(), tmp_path)
    assert len(fake_server.asked) == 2


def test_retry_after_is_obeyed(fake_server: FakeServer, tmp_path: Path) -> None:
    seen = Recorder()
    answers = [Response(status=429, headers={"Retry-After": "3"}), as_json([])]
    read({"type": "api", "request": {"url": fake_server.on("/a", answers)}}, seen.client(), tmp_path)
    assert seen.slept == [3]


@pytest.mark.parametrize("value", ["soon", "-5", "1.5", ""])
def test_junk_in_retry_after_is_ignored(fake_server: FakeServer, tmp_path: Path, value: str) -> None:
    seen = Recorder()
    answers = [Response(status=429, headers={"Retry-After": value}), as_json([])]
    read({"type": "api", "request": {"url": fake_server.on("/a", answers)}}, seen.client(), tmp_path)
    assert seen.slept[0] <= 1


def test_a_wait_beyond_the_slice_is_handed_back_with_its_tries(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", Response(status=429, headers={"Retry-After": "100"}))
    with pytest.raises(WaitError) as caught:
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert (caught.value.seconds, caught.value.tries) == (100, 1)
    with pytest.raises(FetchError):
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path, Position(tries=3))


def test_a_wait_of_a_day_ends_the_extraction(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", Response(status=429, headers={"Retry-After": "86400"}))
    with pytest.raises(PostponedError, match="86400"):
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'[{"id": 1}]')


@pytest.mark.parametrize(("answer", "code"), [(_drip, "timeout"), (_cut, "connection_failed")])
def test_broken_answers_are_retryable(
    fake_server: FakeServer, tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None], code: str
) -> None:
    url = fake_server.on("/a", Response(raw=answer))
    started = time.monotonic()
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": url}, "timeout": "500ms"}, Recorder().client(retries=0), tmp_path)
    assert caught.value.code == code
    assert time.monotonic() - started < 3


def test_a_closed_port_is_retryable(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": "http://127.0.0.1:1/x"}}, Recorder().client(retries=0), tmp_path)
    assert caught.value.code == "connection_failed"


def test_secrets_go_to_their_own_origin_only(fake_server: FakeServer, tmp_path: Path) -> None:
    with FakeServer() as other:
        other.json("/b", [])
        url = fake_server.on("/a", Response(status=302, headers={"Location": other.url + "/b"}))
        auth = {"kind": "header", "name": "X-Key", "value": "${KEY}"}
        request = {"url": url, "auth": auth, "params": {"token": "${KEY}", "q": "1"}, "headers": {"X-More": "${KEY}"}}
        read({"type": "api", "request": request}, Recorder().client(), tmp_path)
        assert fake_server.asked[0].headers["x-key"] == "s3cret"
        assert fake_server.asked[0].query == {"token": "s3cret", "q": "1"}
        assert "s3cret" not in str(other.asked[0])


def test_errors_do_not_show_secrets(fake_server: FakeServer, tmp_path: Path) -> None:
    for answer in (Response(status=404), Response(status=302, headers={"Location": "http://127.0.0.1:1/?k=s3cret"})):
        request = {"url": fake_server.on("/a", answer) + "?fixed=s3cret", "params": {"token": "${KEY}"}}
        with pytest.raises(ETLError) as caught:
            read({"type": "api", "request": request}, Recorder().client(retries=0), tmp_path)
        assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "10.0.0.1", "169.254.169.254", "2130706433"]
)
def test_private_addresses_are_refused_unless_allowed(tmp_path: Path, host: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": f"http://{host}:9/x"}}, Recorder().client(private=()), tmp_path)
    assert caught.value.code == "private_address"


def test_redirects_to_private_addresses_are_refused_too(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", Response(status=302, headers={"Location": "http://169.254.169.254/latest"}))
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert caught.value.code == "private_address"


def test_redirects_end(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", Response(status=302, headers={"Location": "/a"}))
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert caught.value.code == "too_many_redirects"


def _drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(b"X-%d: a\r\n" % number)
        time.sleep(0.05)


def _end_in_the_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le")
    handler.connection.shutdown(2)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"[1")
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _half_a_chunk(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1")
    handler.connection.shutdown(2)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (_drip_headers, "timeout"),
        (_end_in_the_headers, "connection_failed"),
        (_reset, "connection_failed"),
        (_half_a_chunk, "connection_failed"),
    ],
)
def test_an_answer_that_breaks_off_is_noticed_in_time(
    fake_server: FakeServer, tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None], code: str
) -> None:
    url = fake_server.on("/a", Response(raw=answer))
    started = time.monotonic()
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": url}, "timeout": "500ms"}, Recorder().client(retries=0), tmp_path)
    assert caught.value.code == code
    assert time.monotonic() - started < 1.5


def packed(body: bytes, encoding: str = "gzip") -> Response:
    return Response(body, headers={"Content-Encoding": encoding})


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body)[2:-4]


@pytest.mark.parametrize(
    "answer",
    [
        packed(gzip.compress(b'[{"id": 1}]')),
        packed(gzip.compress(b'[{"id"') + gzip.compress(b": 1}]") + b"\0" * 20, "x-gzip"),
        packed(zlib.compress(b'[{"id": 1}]'), "deflate"),
        packed(raw_deflate(b'[{"id": 1}]'), "deflate"),
        Response(b'[{"id": 1}]', headers={"Content-Encoding": "identity"}),
    ],
)
def test_packed_bodies(fake_server: FakeServer, tmp_path: Path, answer: Response) -> None:
    assert records(
        read({"type": "api", "request": {"url": fake_server.on("/a", answer)}}, Recorder().client(), tmp_path)
    ) == [{"id": 1}]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (packed(gzip.compress(b"[" + b"1," * 5000)[:-30]), "truncated"),
        (packed(gzip.compress(b"[]")[:-1]), "truncated"),
        (packed(gzip.compress(b"[]") + b"junk"), "bad_encoding"),
        (packed(b"junk"), "bad_encoding"),
        (packed(b"x", "br"), "bad_encoding"),
        (packed(gzip.compress(bytes(30_000_000))), "bomb"),
        (Response(b"x", headers={"Content-Length": str(10**12)}), "too_large"),
    ],
)
def test_packed_bodies_are_not_trusted(fake_server: FakeServer, tmp_path: Path, answer: Response, code: str) -> None:
    with pytest.raises((FetchError, RefusedError)) as caught:
        read({"type": "api", "request": {"url": fake_server.on("/a", answer)}}, Recorder().client(retries=0), tmp_path)
    assert caught.value.code == code


def test_a_name_that_changes_its_address_gains_nothing(
    fake_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was checked is the one that is connected to."""
    url = fake_server.json("/a", [])
    looked_up: list[str] = []

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        address = {"rebinding.test": "127.0.0.1"}.get(host, host) if len(looked_up) == 1 else host
        address = address.replace("rebinding.test", "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    read(
        {"type": "api", "request": {"url": url.replace("127.0.0.1", "rebinding.test")}},
        Recorder().client(private=("rebinding.test",)),
        tmp_path,
    )
    assert [host for host in looked_up if host == "rebinding.test"] == ["rebinding.test"]
    assert fake_server.asked[0].headers["host"].startswith("rebinding.test")


def test_one_private_address_among_public_ones_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": "http://mixed.test/"}}, Recorder().client(), tmp_path)
    assert caught.value.code == "private_address"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        *((private, False) for private in ("10.1.2.3", "100.64.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1")),
        *((private, False) for private in ("64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::ffff:127.0.0.1", "fe80::1%eth0")),
        *((private, False) for private in ("192.0.0.8", "192.88.99.1", "168.63.129.16", "3fff::1", "5f00::1")),
    ],
)
def test_which_addresses_are_public(address: str, allowed: bool) -> None:
    assert is_allowed(address, "host", 80, ()) is allowed


@pytest.mark.parametrize("entry", ["host", "host:80", "10.0.0.0/8", "10.0.0.1", "10.0.0.1:80"])
def test_a_private_address_can_be_allowed(entry: str) -> None:
    assert is_allowed("10.0.0.1", "host", 80, (entry,))
    assert not is_allowed("192.168.0.1", "other", 80, (entry,))


def test_resolving_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        time.sleep(1.5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    started = time.monotonic()
    with pytest.raises(FetchError) as caught:
        read(
            {"type": "api", "request": {"url": "http://slow.test/"}, "timeout": "300ms"},
            Recorder().client(retries=0),
            tmp_path,
        )
    assert caught.value.code == "dns_failed"
    assert time.monotonic() - started < 1


def test_the_environment_of_the_machine_changes_nothing(
    fake_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", str(netrc))
    request = {"url": fake_server.json("/a", []), "auth": {"kind": "bearer", "token": "${KEY}"}}
    read({"type": "api", "request": request}, Recorder().client(), tmp_path)
    assert fake_server.asked[0].headers["authorization"] == "Bearer s3cret"
    assert fake_server.asked[0].headers["user-agent"].startswith("kasparro-etl/")
    assert not {"cookie", "referer"} & fake_server.asked[0].headers.keys()


# OAuth2


def token_server(fake_server: FakeServer, lifetime: int = 3600) -> dict[str, Any]:
    """Gives a new token at each request, and takes the newest only."""
    given: list[str] = []

    def give(asked: Request) -> Response:
        assert b"grant_type=client_credentials" in asked.body
        given.append(f"token{len(given)}")
        return as_json({"access_token": given[-1], "expires_in": lifetime})

    def serve(asked: Request) -> Response:
        return as_json([]) if asked.headers.get("authorization") == f"Bearer {given[-1]}" else Response(status=401)

    fake_server.on("/token", give)
    auth = {
        "kind": "oauth2_client_credentials",
        "token_url": fake_server.url + "/token",
        "client_id": f"me{fake_server.port}",
        "client_secret": "${KEY}",
        "scope": "read",
        "params": {"audience": "all"},
    }
    return {"type": "api", "request": {"url": fake_server.on("/a", serve), "auth": auth}}


def paths(fake_server: FakeServer) -> list[str]:
    return [asked.path for asked in fake_server.asked]


def test_one_token_serves_many_calls(fake_server: FakeServer, tmp_path: Path) -> None:
    document = token_server(fake_server)
    for _ in range(3):
        read(document, Recorder().client(), tmp_path)
    assert paths(fake_server) == ["/token", "/a", "/a", "/a"]
    assert b"scope=read" in fake_server.asked[0].body
    assert b"audience=all" in fake_server.asked[0].body
    assert b"s3cret" not in fake_server.asked[0].body
    assert fake_server.asked[0].headers["authorization"].startswith("Basic ")


def test_a_token_that_is_refused_is_renewed_once(fake_server: FakeServer, tmp_path: Path) -> None:
    document = token_server(fake_server)
    read(document, Recorder().client(), tmp_path)
    requests.post(fake_server.url + "/token", data="grant_type=client_credentials", timeout=5)
    read(document, Recorder().client(), tmp_path)
    assert paths(fake_server) == ["/token", "/a", "/token", "/a", "/token", "/a"]
    fake_server.on("/a", Response(status=401))
    with pytest.raises(RefusedError) as caught:
        read(document, Recorder().client(), tmp_path)
    assert caught.value.code == "http_401"
    assert paths(fake_server)[6:] == ["/a", "/token", "/a"]


def test_a_token_that_is_about_to_expire_is_renewed(fake_server: FakeServer, tmp_path: Path, monkeypatch: Any) -> None:
    document = token_server(fake_server, lifetime=100)
    read(document, Recorder().client(), tmp_path)
    later = time.monotonic() + 60
    monkeypatch.setattr("etl.http.token.time", SimpleNamespace(monotonic=lambda: later))
    read(document, Recorder().client(), tmp_path)
    assert paths(fake_server) == ["/token", "/a", "/token", "/a"]


@pytest.mark.parametrize("answer", [Response(b"s3cret token", 200), as_json({"error": "no"}), Response(status=400)])
def test_no_token_is_a_failure_that_shows_no_secret(fake_server: FakeServer, tmp_path: Path, answer: Response) -> None:
    document = token_server(fake_server)
    fake_server.on("/token", answer)
    with pytest.raises(ETLError) as caught:
        read(document, Recorder().client(retries=0), tmp_path)
    assert caught.value.code == "token_refused"
    assert "s3cret" not in caught.value.message


# Manners towards the host


def test_a_call_is_one_failure_however_often_it_was_tried(fake_server: FakeServer, tmp_path: Path) -> None:
    seen = Recorder()
    document = {"type": "api", "request": {"url": fake_server.on("/a", Response(status=503))}}
    for _ in range(5):
        with pytest.raises(FetchError):
            read(document, seen.client(retries=2), tmp_path)
    assert len(fake_server.asked) == 15
    with pytest.raises(PostponedError) as caught:
        read(document, seen.client(retries=2), tmp_path)
    assert caught.value.code == "breaker_open"
    assert len(fake_server.asked) == 15


def test_refusals_neither_open_nor_close_the_breaker(fake_server: FakeServer, tmp_path: Path) -> None:
    seen = Recorder()
    bad = {"type": "api", "request": {"url": fake_server.on("/bad", Response(status=503))}}
    missing = {"type": "api", "request": {"url": fake_server.url + "/missing"}}
    for document in (bad, bad, missing, missing, missing, missing, missing, bad, bad, bad):
        with pytest.raises((FetchError, RefusedError)):
            read(document, seen.client(retries=0), tmp_path)
    with pytest.raises(PostponedError):
        read(missing, seen.client(), tmp_path)


def test_a_rate_limit_that_is_used_up_pauses_the_host_for_all(fake_server: FakeServer, tmp_path: Path) -> None:
    used_up = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "40"}
    url = fake_server.on("/a", replace(as_json([]), headers=used_up))
    other = fake_server.json("/b", [])
    seen = Recorder()
    read({"type": "api", "request": {"url": url}}, seen.client(), tmp_path)
    with pytest.raises(WaitError) as caught:
        read({"type": "api", "request": {"url": other}}, seen.client(), tmp_path)
    assert 38 < caught.value.seconds <= 40
    assert paths(fake_server) == ["/a"]


def test_one_429_slows_the_whole_host(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", Response(status=429, headers={"Retry-After": "30"}))
    seen = Recorder()
    for address in (url, fake_server.json("/b", [])):
        with pytest.raises(WaitError):
            read({"type": "api", "request": {"url": address}}, seen.client(), tmp_path)
    assert paths(fake_server) == ["/a"]


def test_a_declared_rate_spaces_the_requests(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on(
        "/a", lambda asked: as_json([{"id": asked.query["page"]}] if int(asked.query["page"]) < 3 else [])
    )
    seen = Recorder()
    read(
        {"type": "api", "request": {"url": url}, "rate": "1/s", "paginate": {"style": "page"}}, seen.client(), tmp_path
    )
    assert len(seen.slept) == 2
    assert all(0.5 < slept <= 1 for slept in seen.slept)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT", "Date": "Fri, 31 Dec 2027 23:58:59 GMT"}, 60),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
        ({"Retry-After": "soon", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}, 9),
        (
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1830297660", "Date": "Fri, 31 Dec 2027 23:59:00 GMT"},
            120,
        ),
        (
            {"RateLimit-Remaining": "0", "RateLimit-Reset": "1830297660000", "Date": "Fri, 31 Dec 2027 23:59:00 GMT"},
            120,
        ),
        ({"RateLimit": '"default";r=0;t=17'}, 17),
        ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "9"}, None),
        ({"Retry-After": "999999999"}, 31 * 86_400),
        ({}, None),
    ],
)
def test_how_long_a_host_wants_to_be_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_asked(CaseInsensitiveDict(headers), is_limited=True) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Cache-Control": "public, max-age=600"}, 600),
        ({"Cache-Control": "max-age=600", "Age": "100"}, 500),
        ({"Cache-Control": "max-age=600, no-cache"}, 0),
        ({"Cache-Control": "s-maxage=600"}, 0),
        ({"Cache-Control": "max-age=31536000"}, 86_400),
        ({"Expires": "Fri, 31 Dec 2027 23:59:00 GMT", "Date": "Fri, 31 Dec 2027 23:58:00 GMT"}, 60),
        ({"Expires": "0"}, 0),
        ({"Cache-Control": "max-age=5", "Expires": "Fri, 31 Dec 2027 23:59:00 GMT"}, 5),
        ({"X-Poll-Interval": "60"}, 60),
        ({}, 0),
    ],
)
def test_how_long_an_answer_stays_fresh(headers: dict[str, str], seconds: float) -> None:
    assert freshness({name.lower(): value for name, value in headers.items()}) == seconds


def test_the_body_of_a_redirect_is_not_read(fake_server: FakeServer, tmp_path: Path) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(302)
        handler.send_header("Location", "/b")
        handler.end_headers()
        while sent < 2000:
            handler.wfile.write(bytes(100_000))
            sent += 1

    fake_server.json("/b", [{"id": 1}])
    url = fake_server.on("/a", Response(raw=endless))
    assert records(read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)) == [{"id": 1}]
    assert sent < 500


def test_a_token_endpoint_that_asks_to_wait_is_not_waited_for_for_ever(fake_server: FakeServer, tmp_path: Path) -> None:
    document = token_server(fake_server)
    fake_server.on("/token", Response(status=503, headers={"Retry-After": "10"}))
    seen, position = Recorder(), Position()
    for _ in range(3):
        with pytest.raises(WaitError) as caught:
            read(document, seen.client(), tmp_path, position)
        position = Position(tries=caught.value.tries)
    with pytest.raises(FetchError):
        read(document, seen.client(), tmp_path, position)


def test_tls_that_breaks_may_pass_and_a_bad_certificate_does_not(fake_server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        read(
            {"type": "api", "request": {"url": fake_server.url.replace("http:", "https:") + "/a"}},
            Recorder().client(retries=0),
            tmp_path,
        )
    assert caught.value.code == "tls_failed"


def test_a_full_disk_is_not_the_hosts_fault(fake_server: FakeServer) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any, /) -> int:
            raise OSError(28, "No space left on device")

    seen, target = Recorder(), PreparedRequest(fake_server.json("/a", []), "shown")
    for _ in range(6):
        with pytest.raises(ScratchError):
            seen.client(retries=0).fetch(target, 2.0, Full())
