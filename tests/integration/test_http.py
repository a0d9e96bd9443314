"""HTTP as the extractors use it, against a server of our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from bench.outside import Answered, Outside, as_json
from etl.errors import ETLError, FetchError, PostponedError, RefusedError, WaitError
from etl.records import Position
from tests.reading import Recorder, read, records


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(outside: Outside, tmp_path: Path, status: int) -> None:
    url = outside.on("/a", [Answered(status=status), Answered(status=status), as_json([{"id": 1}])])
    seen = Recorder()
    assert records(read({"type": "api", "request": {"url": url}}, seen.client(), tmp_path)) == [{"id": 1}]
    assert len(outside.asked) == 3
    assert [0.5 <= seen.slept[0] <= 1, 1 <= seen.slept[1] <= 2] == [True, True]


def test_tries_end(outside: Outside, tmp_path: Path) -> None:
    seen = Recorder()
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": outside.on("/a", Answered(status=503))}}, seen.client(), tmp_path)
    assert caught.value.code == "http_503"
    assert len(outside.asked) == 4
    assert len(seen.waits) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(outside: Outside, tmp_path: Path, status: int) -> None:
    seen = Recorder()
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": outside.on("/a", Answered(status=status))}}, seen.client(), tmp_path)
    assert caught.value.code == f"http_{status}"
    assert len(outside.asked) == 1


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"X-RateLimit-Remaining": "0"}])
def test_a_403_that_limits_the_rate_is_tried_again(outside: Outside, tmp_path: Path, headers: dict[str, str]) -> None:
    url = outside.on("/a", [Answered(status=403, headers=headers), as_json([])])
    seen = Recorder()
    read({"type": "api", "request": {"url": url}}, seen.client(), tmp_path)
    assert len(outside.asked) == 2


def test_retry_after_is_obeyed(outside: Outside, tmp_path: Path) -> None:
    seen = Recorder()
    answers = [Answered(status=429, headers={"Retry-After": "3"}), as_json([])]
    read({"type": "api", "request": {"url": outside.on("/a", answers)}}, seen.client(), tmp_path)
    assert seen.slept == [3]


@pytest.mark.parametrize("value", ["soon", "-5", "1.5", ""])
def test_junk_in_retry_after_is_ignored(outside: Outside, tmp_path: Path, value: str) -> None:
    seen = Recorder()
    answers = [Answered(status=429, headers={"Retry-After": value}), as_json([])]
    read({"type": "api", "request": {"url": outside.on("/a", answers)}}, seen.client(), tmp_path)
    assert seen.slept[0] <= 1


def test_a_wait_beyond_the_slice_is_handed_back_with_its_tries(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/a", Answered(status=429, headers={"Retry-After": "100"}))
    with pytest.raises(WaitError) as caught:
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert (caught.value.seconds, caught.value.tries) == (100, 1)
    with pytest.raises(FetchError):
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path, Position(tries=3))


def test_a_wait_of_a_day_ends_the_extraction(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/a", Answered(status=429, headers={"Retry-After": "86400"}))
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
    outside: Outside, tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None], code: str
) -> None:
    url = outside.on("/a", Answered(raw=answer))
    started = time.monotonic()
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": url}, "timeout": "500ms"}, Recorder().client(retries=0), tmp_path)
    assert caught.value.code == code
    assert time.monotonic() - started < 3


def test_a_closed_port_is_retryable(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": "http://127.0.0.1:1/x"}}, Recorder().client(retries=0), tmp_path)
    assert caught.value.code == "connection_failed"


def test_secrets_go_to_their_own_origin_only(outside: Outside, tmp_path: Path) -> None:
    with Outside() as other:
        other.json("/b", [])
        url = outside.on("/a", Answered(status=302, headers={"Location": other.url + "/b"}))
        auth = {"kind": "header", "name": "X-Key", "value": "${KEY}"}
        request = {"url": url, "auth": auth, "params": {"token": "${KEY}", "q": "1"}, "headers": {"X-More": "${KEY}"}}
        read({"type": "api", "request": request}, Recorder().client(), tmp_path)
        assert outside.asked[0].headers["x-key"] == "s3cret"
        assert outside.asked[0].query == {"token": "s3cret", "q": "1"}
        assert "s3cret" not in str(other.asked[0])


def test_errors_do_not_show_secrets(outside: Outside, tmp_path: Path) -> None:
    for answer in (Answered(status=404), Answered(status=302, headers={"Location": "http://127.0.0.1:1/?k=s3cret"})):
        request = {"url": outside.on("/a", answer) + "?fixed=s3cret", "params": {"token": "${KEY}"}}
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


def test_redirects_to_private_addresses_are_refused_too(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/a", Answered(status=302, headers={"Location": "http://169.254.169.254/latest"}))
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert caught.value.code == "private_address"


def test_redirects_end(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/a", Answered(status=302, headers={"Location": "/a"}))
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert caught.value.code == "too_many_redirects"
