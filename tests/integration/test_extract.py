"""The extractors against a server and files of our own."""

from __future__ import annotations

import bz2
import gzip
import io
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from bench.outside import Answered, Asked, Outside, as_json
from etl.errors import ETLError, FetchError, FormatError, RefusedError, WaitError
from etl.extract import open_source
from etl.extract.http import HttpClient, Policy
from etl.records import BadRecord, Page, Position
from etl.source import parse, secrets_of


class Recorder:
    """The caller's side of an HTTP client: what it was told, and no real waiting."""

    def __init__(self) -> None:
        self.attempts = 0
        self.waits: list[float] = []
        self.slept: list[float] = []

    def client(self, *, retries: int = 3, private: tuple[str, ...] = ("127.0.0.1",), seconds: float = 60) -> HttpClient:
        policy = Policy(retries, private, time.monotonic() + seconds)
        return HttpClient(policy, self._attempt, self._retry, sleep=self.slept.append)

    def _attempt(self, seconds: float) -> None:
        assert seconds > 0
        self.attempts += 1

    def _retry(self, error: ETLError, tries: int, seconds: float) -> None:
        self.waits.append(seconds)


def read(document: dict[str, Any], client: HttpClient, tmp_path: Path, position: Position | None = None) -> list[Page]:
    source = parse({"name": "a", "timeout": "2s", **document})
    secrets = dict.fromkeys(secrets_of(source), "s3cret")
    extractor = open_source(source, client, secrets, tmp_path / "scratch", (tmp_path,), tmp_path)
    return list(extractor.pages(position or Position()))


def records(pages: list[Page]) -> list[Any]:
    return [record for page in pages for record in page.records]


# --- HTTP


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(outside: Outside, tmp_path: Path, status: int) -> None:
    url = outside.on("/a", [Answered(status=status), Answered(status=status), as_json([{"id": 1}])])
    seen = Recorder()
    assert records(read({"type": "api", "request": {"url": url}}, seen.client(), tmp_path)) == [{"id": 1}]
    assert seen.attempts == 3
    assert [0.5 <= seen.slept[0] <= 1, 1 <= seen.slept[1] <= 2] == [True, True]


def test_tries_end(outside: Outside, tmp_path: Path) -> None:
    seen = Recorder()
    with pytest.raises(FetchError) as caught:
        read({"type": "api", "request": {"url": outside.on("/a", Answered(status=503))}}, seen.client(), tmp_path)
    assert caught.value.code == "http_503"
    assert seen.attempts == 4
    assert len(seen.waits) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(outside: Outside, tmp_path: Path, status: int) -> None:
    seen = Recorder()
    with pytest.raises(RefusedError) as caught:
        read({"type": "api", "request": {"url": outside.on("/a", Answered(status=status))}}, seen.client(), tmp_path)
    assert caught.value.code == f"http_{status}"
    assert seen.attempts == 1


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"X-RateLimit-Remaining": "0"}])
def test_a_403_that_limits_the_rate_is_tried_again(outside: Outside, tmp_path: Path, headers: dict[str, str]) -> None:
    url = outside.on("/a", [Answered(status=403, headers=headers), as_json([])])
    seen = Recorder()
    read({"type": "api", "request": {"url": url}}, seen.client(), tmp_path)
    assert seen.attempts == 2


def test_retry_after_is_obeyed(outside: Outside, tmp_path: Path) -> None:
    seen = Recorder()
    answers = [Answered(status=429, headers={"Retry-After": "7"}), as_json([])]
    read({"type": "api", "request": {"url": outside.on("/a", answers)}}, seen.client(), tmp_path)
    assert seen.slept == [7]


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
    with pytest.raises(RefusedError, match="86400"):
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


# --- REST


def paged(outside: Outside, answer: Callable[[Asked], Any]) -> str:
    return outside.on("/items", lambda asked: as_json(answer(asked)))


def test_pages_by_number(outside: Outside, tmp_path: Path) -> None:
    url = paged(outside, lambda asked: [{"id": asked.query["p"]}] if int(asked.query["p"]) < 4 else [])
    pages = read(
        {"type": "api", "request": {"url": url}, "paginate": {"style": "page", "param": "p"}},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == [{"id": "1"}, {"id": "2"}, {"id": "3"}]


def test_pages_by_offset(outside: Outside, tmp_path: Path) -> None:
    data = [{"id": n} for n in range(5)]

    def answer(asked: Asked) -> Any:
        start = int(asked.query["offset"])
        return data[start : start + int(asked.query["limit"])]

    paginate = {"style": "offset", "limit": 2}
    pages = read(
        {"type": "api", "request": {"url": paged(outside, answer)}, "paginate": paginate}, Recorder().client(), tmp_path
    )
    assert records(pages) == data


def test_pages_by_cursor_in_the_body(outside: Outside, tmp_path: Path) -> None:
    following = {None: "b", "b": "c", "c": None}

    def answer(asked: Asked) -> Any:
        at = asked.query.get("cursor")
        return {"items": [] if at == "b" else [{"id": at}], "meta": {"next": following[at]}}

    document = {"type": "api", "records": "items", "paginate": {"style": "cursor", "next": "meta.next"}}
    pages = read({**document, "request": {"url": paged(outside, answer)}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"id": None}, {"id": "c"}]


def test_pages_by_next_address(outside: Outside, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        at = int(asked.query.get("at", 0))
        return {"items": [{"id": at}], "next": f"?at={at + 1}" if at < 2 else None}

    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    pages = read({**document, "request": {"url": paged(outside, answer)}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_pages_by_link_header(outside: Outside, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answered:
        at = int(asked.query.get("at", 0))
        link = {"Link": f'</items?at={at + 1}>; rel="next"'} if at < 2 else {}
        return replace(as_json([{"id": at}]), headers=link)

    pages = read(
        {"type": "api", "request": {"url": outside.on("/items", answer)}, "paginate": {"style": "link_header"}},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_a_loop_of_pages_is_a_failure(outside: Outside, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        return {"items": [{"id": 1}], "next": "?at=a" if asked.query.get("at") == "b" else "?at=b"}

    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    with pytest.raises(FormatError, match="loop"):
        read({**document, "request": {"url": paged(outside, answer)}}, Recorder().client(), tmp_path)


def test_the_next_page_must_be_of_the_same_origin(outside: Outside, tmp_path: Path) -> None:
    url = outside.json("/items", {"items": [{"id": 1}], "next": "http://example.com/x"})
    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    with pytest.raises(RefusedError) as caught:
        read({**document, "request": {"url": url}}, Recorder().client(), tmp_path)
    assert caught.value.code == "foreign_page"


def test_too_many_pages_is_a_failure(outside: Outside, tmp_path: Path) -> None:
    url = outside.json("/items", [{"id": 1}])
    with pytest.raises(FormatError) as caught:
        read(
            {"type": "api", "request": {"url": url}, "paginate": {"style": "page", "max_pages": 3}},
            Recorder().client(),
            tmp_path,
        )
    assert caught.value.code == "too_many_pages"
    assert len(outside.asked) == 3


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"error": "no"}', b'{"items": 3}', b"[NaN]", b""])
def test_what_is_no_list_of_records_is_a_failure(outside: Outside, tmp_path: Path, body: bytes) -> None:
    url = outside.on("/items", Answered(body))
    with pytest.raises(FormatError):
        read({"type": "api", "request": {"url": url}, "records": "items"}, Recorder().client(), tmp_path)


def test_entries_that_are_no_objects_are_bad_records(outside: Outside, tmp_path: Path) -> None:
    url = outside.json("/items", [{"id": 1}, None, 3])
    found = records(read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path))
    assert [getattr(record, "rule", None) for record in found] == [None, "not_an_object", "not_an_object"]


def test_incremental_asks_from_the_watermark_less_the_lookback(outside: Outside, tmp_path: Path) -> None:
    url = outside.json(
        "/items", [{"id": 1, "at": "2026-01-01T10:00:00Z"}, {"id": 2, "at": "2026-01-01T09:00:00+00:00"}]
    )
    incremental = {"field": "at", "param": "since", "lookback": "1h"}
    document = {"type": "api", "request": {"url": url}, "incremental": incremental}
    (page,) = read(document, Recorder().client(), tmp_path)
    assert page.watermark == "2026-01-01T10:00:00Z"
    assert "since" not in outside.asked[0].query
    read(document, Recorder().client(), tmp_path, Position(watermark=page.watermark))
    assert outside.asked[1].query["since"] == "2026-01-01T09:00:00Z"


# --- feeds

RSS = b"""<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>
<item><guid>g1</guid><title>One &amp; only</title><link>http://x/1</link><description>d</description>
<pubDate>Tue, 06 Feb 2018 08:04:11 +0100</pubDate><category>c</category></item>
<item><title>No id</title><link>http://x/2</link></item><item><title>Nothing</title></item>
</channel></rss>"""


def test_feeds(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/f", Answered(RSS, headers={"Content-Type": "application/rss+xml"}))
    found = records(read({"type": "rss", "request": {"url": url}}, Recorder().client(), tmp_path))
    assert found[2]["id"] == "g1"
    assert found[2]["title"] == "One & only"
    assert found[2]["published"] == "2018-02-06T07:04:11Z"
    assert found[2]["tags"] == ["c"]
    assert found[1]["id"] == "http://x/2"
    assert found[0]["id"].startswith("hash:")


@pytest.mark.parametrize("body", [b"<html><body>sign in</body></html>", b"", b"/etc/hostname", RSS[:300], RSS[:-20]])
def test_what_is_no_whole_feed_is_a_failure(outside: Outside, tmp_path: Path, body: bytes) -> None:
    url = outside.on("/f", Answered(body))
    with pytest.raises(FormatError):
        read({"type": "rss", "request": {"url": url}}, Recorder().client(), tmp_path)


# --- CSV


def csv(tmp_path: Path, body: bytes, **dialect: Any) -> list[Any]:
    (tmp_path / "x.csv").write_bytes(body)
    document = {"type": "csv", "file": "x.csv", **({"csv": dialect} if dialect else {})}
    return records(read(document, Recorder().client(), tmp_path))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"a,b\n1,2\n", [{"a": "1", "b": "2"}]),
        (b"a,b\r\n1,2", [{"a": "1", "b": "2"}]),
        (b"a,b\r1,2\r3,4\r", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        (b'a,b\n"1\n\n1","x""y"\n', [{"a": "1\n\n1", "b": 'x"y'}]),
        (b"\xef\xbb\xbfa,a,,b \n1,2,3,4\n", [{"a": "1", "a_2": "2", "column_3": "3", "b": "4"}]),
        (b"\n\na\n1\n\n\n2\n", [{"a": "1"}, {"a": "2"}]),
        ("a\nä\u2028\x85b\n".encode(), [{"a": "ä\u2028\x85b"}]),
        (gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"), [{"a": "1"}, {"a": "2"}]),
        (bz2.compress(b"a\n1\n"), [{"a": "1"}]),
        ("a\nä\n".encode("utf-16"), [{"a": "ä"}]),
    ],
)
def test_files(tmp_path: Path, body: bytes, expected: list[Any]) -> None:
    assert csv(tmp_path, body) == expected


def test_dialects(tmp_path: Path) -> None:
    assert csv(tmp_path, b"1;'2;3'\n", delimiter=";", quote="'", header=False) == [{"column_1": "1", "column_2": "2;3"}]
    assert csv(tmp_path, "a\n5€\n".encode("cp1252"), encoding="cp1252") == [{"a": "5€"}]


def test_zip_with_one_member(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.csv", "a\n1\n")
    assert csv(tmp_path, packed.getvalue()) == [{"a": "1"}]
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("y.csv", "a\n1\n")
    with pytest.raises(FormatError, match="2 files"):
        (tmp_path / "scratch").unlink(missing_ok=True)
        csv(tmp_path, packed.getvalue())


@pytest.mark.parametrize(
    "body", [gzip.compress(b"a\n" + b"1\n" * 1000)[:-20], b"PK\x03\x04junk", b"\x1f\x8bjunk", b"", b"\n\n"]
)
def test_broken_files_are_a_failure(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(FormatError):
        csv(tmp_path, body)


def test_bad_rows_cost_only_themselves(tmp_path: Path) -> None:
    found = csv(tmp_path, b'a,b\n1,2\n3\n4,5,6\n"open,7\n8,9\n\xff,1\nlast,one\n')
    assert [r.rule if isinstance(r, BadRecord) else r["a"] for r in found] == [
        *("1", "columns", "columns", "csv", "8", "encoding", "last"),
    ]
    assert [r.raw for r in found if isinstance(r, BadRecord)] == [b"3\n", b"4,5,6\n", b'"open,7\n', b"\xff,1\n"]


def test_a_file_is_resumed_at_its_offset(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"a\n" + b"".join(b"%d\n" % n for n in range(2500)))
    first, second, third = read({"type": "csv", "file": "x.csv"}, Recorder().client(), tmp_path)
    assert [len(page.records) for page in (first, second, third)] == [1000, 1000, 500]
    resumed = read({"type": "csv", "file": "x.csv"}, Recorder().client(), tmp_path, Position(first.following))
    assert records(resumed) == second.records + third.records
    (tmp_path / "x.csv").write_bytes(b"a\nnew\n")
    assert records(
        read({"type": "csv", "file": "x.csv"}, Recorder().client(), tmp_path, Position(first.following))
    ) == [{"a": "new"}]


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/hostname", "link.csv", "."])
def test_files_outside_of_the_allowed_folders_are_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (inside / "link.csv").symlink_to(tmp_path / "secret.csv")
    source = parse({"name": "a", "type": "csv", "file": name})
    extractor = open_source(source, Recorder().client(), {}, tmp_path / "scratch", (inside,), inside)
    with pytest.raises(ETLError):
        list(extractor.pages(Position()))


def test_csv_by_address(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/x", [Answered(status=500), Answered(gzip.compress(b"a\n1\n2\n"))])
    pages = read({"type": "csv", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"a": "1"}, {"a": "2"}]
    assert not (tmp_path / "scratch").exists()
