"""Downloads go on where they stopped, or start anew, and end by name."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etl.errors import LeaseLostError
from etl.http.target import PreparedRequest
from testkit.fake_server import FakeServer, Request, Response
from testkit.reading import Recorder
from testkit.runner import SourceRunner

ROWS = "id,price,name\n" + "".join(f"{n},{n},{'x' * 130}\n" for n in range(17_000))
BODY = ROWS.encode()


def csv_source(url: str, **more: object) -> dict[str, object]:
    return {"name": "shop", "type": "csv", "request": {"url": url}, "timeout": "5s", **more}


class Shop:
    """A server that cuts its first answers short, and may give the rest."""

    def __init__(self, cuts: int, *, ranges: bool = True, etag: str = '"a"') -> None:
        self.cuts = cuts
        self.ranges = ranges
        self.etag = etag
        self.asked: list[str | None] = []

    def __call__(self, asked: Request) -> Response:
        wanted = asked.headers.get("range")
        self.asked.append(wanted)
        first = 0
        if self.ranges and wanted and asked.headers.get("if-range") == self.etag:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
        body = BODY[first:]
        self.cuts -= 1
        return Response(raw=lambda handler: self._send(handler, body, first, cut=self.cuts >= 0))

    def _send(self, handler: Any, body: bytes, first: int, *, cut: bool) -> None:
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", self.etag)
        if self.ranges:
            handler.send_header("Accept-Ranges", "bytes")
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(BODY) - 1}/{len(BODY)}")
        handler.end_headers()
        handler.wfile.write(body[:700_000] if cut else body)


def test_a_download_goes_on_where_it_stopped(runner: SourceRunner, fake_server: FakeServer) -> None:
    shop = Shop(cuts=3)
    runner.declare(csv_source(fake_server.on("/a", shop)))
    run = runner.run("shop")
    assert (run["status"], run["records_inserted"]) == ("success", 17_000)
    assert shop.asked == [None, "bytes=700000-", "bytes=1400000-", "bytes=2100000-"]


def test_steps_forward_count_as_no_failures(runner: SourceRunner, fake_server: FakeServer) -> None:
    """One retry is allowed; three cuts are met."""
    assert runner.settings.max_retries == 1
    runner.declare(csv_source(fake_server.on("/a", Shop(cuts=3))))
    assert runner.run("shop")["status"] == "success"


def test_without_ranges_it_starts_anew_until_the_retries_are_used_up(
    runner: SourceRunner, fake_server: FakeServer
) -> None:
    shop = Shop(cuts=9, ranges=False)
    runner.declare(csv_source(fake_server.on("/a", shop)))
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"], shop.asked) == ("failed", "connection_failed", [None, None])
    assert list((runner.settings.state_dir / "downloads").glob("*")) == []


def test_a_file_that_changed_in_between_is_read_from_its_start(runner: SourceRunner, fake_server: FakeServer) -> None:
    shop = Shop(cuts=1)

    def changing(asked: Request) -> Response:
        if shop.asked:
            shop.etag = '"b"'
        return shop(asked)

    runner.declare(csv_source(fake_server.on("/a", changing)))
    run = runner.run("shop")
    assert (run["status"], run["records_inserted"], shop.asked) == ("success", 17_000, [None, "bytes=700000-"])


def test_a_weak_mark_is_not_gone_by(runner: SourceRunner, fake_server: FakeServer) -> None:
    shop = Shop(cuts=1, etag='W/"a"')
    runner.declare(csv_source(fake_server.on("/a", shop)))
    assert runner.run("shop")["status"] == "success"
    assert shop.asked == [None, None]


def test_a_server_that_sends_the_wrong_part_is_asked_anew(runner: SourceRunner, fake_server: FakeServer) -> None:
    def wrong(handler: Any) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 5-{len(BODY) - 1}/{len(BODY)}")
        handler.send_header("Content-Length", str(len(BODY) - 5))
        handler.end_headers()
        handler.wfile.write(BODY[5:])

    shop = Shop(cuts=1)

    def confused(asked: Request) -> Response:
        if asked.headers.get("range"):
            return Response(raw=wrong)
        return shop(asked)

    runner.settings = replace(runner.settings, max_retries=3)
    runner.declare(csv_source(fake_server.on("/a", confused)))
    run = runner.run("shop")
    assert (run["status"], run["records_inserted"]) == ("success", 17_000)


def test_a_dripping_download_ends_by_name(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for window in ("FIRST_WINDOW", "RATE_WINDOW"):
        monkeypatch.setattr(f"etl.runs.share.{window}", 0.3)

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b"a")
            time.sleep(0.05)

    runner.declare(csv_source(fake_server.on("/a", Response(raw=drip))))
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"]) == ("failed", "too_slow")


def test_a_download_past_its_slice_goes_on_if_there_is_room(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.slice_seconds = 0.2
    monkeypatch.setattr("etl.http.download.RENEW_SECONDS", 0.1)
    asked: list[str] = []

    def slow(handler: Any) -> None:
        asked.append("")
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        for first in range(0, len(BODY), 200_000):
            handler.wfile.write(BODY[first : first + 200_000])
            time.sleep(0.1)

    fake_server.on("/a", [Response(b"id\n1\n"), Response(raw=slow)])
    runner.declare(csv_source(fake_server.url + "/a"))
    runner.run("shop")
    run_id = runner.queue("shop")
    # Another download has the share of slow sources.
    runner.sql(
        """INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, slow, dispatched_at)
        VALUES (gen_random_uuid(), 'other', 'csv', 'api', 'running', 'extracting', true, now())"""
    )
    runner.step()
    assert runner.show(run_id)["stage"] == "waiting"
    assert runner.sql("SELECT slow FROM etl_runs WHERE run_id = :id", id=run_id) == [True]
    runner.sql("DELETE FROM etl_runs WHERE source_name = 'other'")
    runner.drain()
    assert (runner.show(run_id)["status"], len(asked)) == ("success", 2)


def test_a_part_of_another_request_is_not_gone_on_with(tmp_path: Path, fake_server: FakeServer) -> None:
    client = Recorder().client()
    part = tmp_path / "a.part"
    part.write_bytes(b"rubbish")
    part.with_name("a.part.about").write_bytes(b'{"request":"another","etag":"\\"a\\""}')
    url = fake_server.on("/a", Response(b"whole"))
    client.download(PreparedRequest(url, url), 5, part)
    assert part.read_bytes() == b"whole"
    assert not fake_server.asked[0].headers.get("range")


@pytest.mark.parametrize(
    ("content_range", "etag"),
    [("bytes 700000-{last}/{total}", '"b"'), ("bytes 700000-700099/{total}", '"a"')],
    ids=["of another version", "not all of the rest"],
)
def test_a_part_is_taken_only_if_it_is_the_rest_of_the_same_version(
    runner: SourceRunner, fake_server: FakeServer, content_range: str, etag: str
) -> None:
    shop = Shop(cuts=1)

    def wrong(handler: Any) -> None:
        first, last = 700_000, len(BODY) - 1 if etag == '"b"' else 700_099
        handler.send_response(206)
        handler.send_header("Content-Range", content_range.format(last=last, total=len(BODY)))
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(last + 1 - first))
        handler.end_headers()
        handler.wfile.write(b"x" * (last + 1 - first))

    def mixed(asked: Request) -> Response:
        return Response(raw=wrong) if asked.headers.get("range") else shop(asked)

    runner.settings = replace(runner.settings, max_retries=3)
    runner.declare(csv_source(fake_server.on("/a", mixed)))
    run = runner.run("shop")
    assert (run["status"], run["records_inserted"]) == ("success", 17_000)


def test_a_download_that_is_always_cut_at_the_same_place_ends(runner: SourceRunner, fake_server: FakeServer) -> None:
    """A server with another mark for each answer gives no step forward, however much it sends."""
    shop = Shop(cuts=99)
    marks = iter(range(100))

    def marked(asked: Request) -> Response:
        shop.etag = f'"{next(marks)}"'
        return shop(asked)

    runner.declare(csv_source(fake_server.on("/a", marked)))
    assert runner.run("shop")["status"] == "failed"
    assert len(shop.asked) <= 4


def test_who_lost_the_lease_leaves_the_part_to_its_new_owner(tmp_path: Path, fake_server: FakeServer) -> None:
    part = tmp_path / "a.part"

    class Loser(Recorder):
        def keep(self, seconds: float) -> None:
            if part.exists():
                raise LeaseLostError("someone else has it")

    url = fake_server.on("/a", Shop(cuts=0))
    with pytest.raises(LeaseLostError):
        Loser().client().download(PreparedRequest(url, url), 5, part)
    assert part.exists()
