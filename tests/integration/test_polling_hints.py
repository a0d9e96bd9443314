"""What a source's server says between two runs: unchanged, later, moved, gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from db.queries.closing import end_run
from db.queries.slots import claim_slots
from etl.declare.source import Schedule
from etl.runs.outcome import Outcome, Status
from etl.runs.polling import MOVED_AFTER
from etl.runs.schedule import QuietHours, may_be_quiet
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner

RSS = (
    b'<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>%s'
    b"<item><guid>g1</guid><title>One</title></item></channel></rss>"
)


def source(fake_server: FakeServer, **more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "api", "request": {"url": fake_server.url + "/a"}, "timeout": "2s", **more}


def state(runner: SourceRunner) -> tuple[Any, ...]:
    (row,) = runner.sql("SELECT not_before, not_before_reason, moved_to, moved_count, gone_reason, rest FROM sources")
    return tuple(row)


def marked(body: Any, etag: str) -> Any:
    def answer(asked: Request) -> Response:
        if asked.headers.get("if-none-match") == etag:
            return Response(status=304)
        return replace(as_json(body), headers={"ETag": etag})

    return answer


def test_an_unchanged_source_costs_one_request_and_no_row(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"id": 1}, {"id": 2}], '"x"'))
    runner.declare(source(fake_server))
    assert runner.run("shop")["records_inserted"] == 2
    before = runner.sql("SELECT id, change_xid::text, xmin::text FROM unified_items ORDER BY id")
    run = runner.run("shop")
    assert (run["status"], run["records_extracted"]) == ("success", 0)
    assert len(fake_server.asked) == 2
    assert runner.sql("SELECT count(*) FROM raw_data") == [2]
    assert runner.sql("SELECT id, change_xid::text, xmin::text FROM unified_items ORDER BY id") == before


def test_a_source_with_rejects_is_asked_for_everything_again(runner: SourceRunner, fake_server: FakeServer) -> None:
    """Else the next run would look well."""
    fake_server.on("/a", marked([{"id": 1}, {"id": 2}, {"name": "no id"}], '"x"'))
    runner.declare(source(fake_server))
    for _ in range(2):
        run = runner.run("shop")
        assert (run["status"], run["records_failed"]) == ("partial", 1)


def test_a_run_that_failed_leaves_no_mark(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"name": "no id"}], '"x"'))
    runner.declare(source(fake_server))
    assert runner.run("shop")["status"] == "failed"
    fake_server.on("/a", marked([{"id": 1}], '"x"'))
    assert runner.run("shop")["records_inserted"] == 1


def test_a_cancelled_run_leaves_no_mark(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"id": 1}], '"x"'))
    runner.declare(source(fake_server))
    run_id = runner.queue("shop")
    runner.step()
    runner.database.transact(end_run, run_id, Outcome(Status.CANCELLED))
    runner.drain()
    assert runner.run("shop")["records_inserted"] == 1


def test_another_mapping_asks_for_everything_again(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"id": 1, "a": "x", "b": "y"}], '"x"'))
    runner.declare(source(fake_server, map={"external_id": "id", "title": "a"}))
    runner.run("shop")
    runner.declare(source(fake_server, map={"external_id": "id", "title": "b"}))
    assert runner.run("shop")["records_updated"] == 1
    assert runner.sql("SELECT title FROM unified_items") == ["y"]
    assert runner.run("shop")["records_extracted"] == 0


def test_a_watermark_outlives_an_empty_answer(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.json("/a", [{"id": 1, "at": "2026-01-01T00:00:00Z"}])
    runner.declare(source(fake_server, incremental={"field": "at", "param": "since"}))
    runner.run("shop")
    fake_server.json("/a", [])
    runner.run("shop")
    runner.run("shop")
    assert [asked.query.get("since") for asked in fake_server.asked] == [None, *["2026-01-01T00:00:00Z"] * 2]


def due(runner: SourceRunner) -> list[tuple[str, str | None]]:
    """Let the next slot come, and see what becomes of it."""
    runner.sql("DELETE FROM etl_runs WHERE scheduled_for IS NOT NULL")
    runner.sql("UPDATE sources SET next_run_at = clock_timestamp()")
    runner.database.transact(claim_slots)
    found = runner.sql(
        "SELECT status, error_code FROM etl_runs WHERE scheduled_for IS NOT NULL ORDER BY created_at DESC LIMIT 1"
    )
    runner.sql("UPDATE etl_runs SET status = 'cancelled', completed_at = now() WHERE status = 'queued'")
    return found


def test_a_fresh_answer_spaces_the_polls(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", replace(as_json([{"id": 1}]), headers={"Cache-Control": "max-age=3600"}))
    runner.declare(source(fake_server))
    runner.run("shop")
    not_before, reason, *_ = state(runner)
    assert reason == "fresh"
    assert timedelta(minutes=59) < not_before - datetime.now(UTC) <= timedelta(hours=1)
    assert due(runner) == [("skipped", "not_due")]
    # By hand it can be run all the same.
    assert runner.run("shop")["status"] == "success"
    fake_server.json("/a", [{"id": 1}])
    runner.run("shop")
    assert state(runner)[0] is None
    assert due(runner) == [("queued", None)]


def test_the_cache_can_be_left_out_of_it(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", replace(as_json([{"id": 1}]), headers={"Cache-Control": "max-age=3600"}))
    runner.declare(source(fake_server, honour_cache=False))
    runner.run("shop")
    assert state(runner)[0] is None


def test_a_feed_says_when_it_is_quiet(runner: SourceRunner, fake_server: FakeServer) -> None:
    hours = b"".join(b"<hour>%d</hour>" % hour for hour in range(24) if hour != (datetime.now(UTC).hour + 12) % 24)
    fake_server.on("/a", Response(RSS % (b"<ttl>0</ttl><skipHours>%s</skipHours>" % hours)))
    runner.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    runner.run("shop")
    assert len(state(runner)[-1]["hours"]) == 23
    assert due(runner) == [("skipped", "not_due")]


def test_a_long_pause_skips_the_run_and_those_after_it(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=429, headers={"Retry-After": "86400"}))
    runner.declare(source(fake_server))
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"]) == ("skipped", "postponed")
    assert due(runner) == [("skipped", "not_due")]
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"]) == ("skipped", "not_due")
    assert len(fake_server.asked) == 1


def test_a_long_pause_in_mid_run_keeps_what_was_read(runner: SourceRunner, fake_server: FakeServer) -> None:
    def answer(asked: Request) -> Response:
        if asked.query["page"] == "2":
            return Response(status=503, headers={"Retry-After": "86400"})
        return as_json([{"id": 1}])

    fake_server.on("/a", answer)
    runner.declare(source(fake_server, paginate={"style": "page"}))
    run = runner.run("shop")
    assert (run["status"], run["records_inserted"], run["error"]["code"]) == ("partial", 1, "postponed")


def test_an_open_breaker_skips_the_run(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=503))
    runner.settings = replace(runner.settings, max_retries=0)
    runner.declare(source(fake_server))
    statuses = [runner.run("shop")["status"] for _ in range(7)]
    assert statuses == ["failed"] * 5 + ["skipped"] * 2
    assert len(fake_server.asked) == 5


def test_a_move_is_believed_when_it_is_repeated(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=301, headers={"Location": "/b"}))
    fake_server.on("/b", Response(RSS % b""))
    runner.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    for _ in range(MOVED_AFTER):
        assert runner.run("shop")["status"] == "success"
    assert state(runner)[2:4] == (fake_server.url + "/b", MOVED_AFTER)
    fake_server.asked.clear()
    assert runner.run("shop")["status"] == "success"
    assert [asked.path for asked in fake_server.asked] == ["/b"]
    # When the new address does not serve it either, the declared one is asked again.
    fake_server.on("/b", Response(status=404))
    assert runner.run("shop")["status"] == "failed"
    assert state(runner)[2:4] == (None, 0)


def test_a_move_for_a_while_is_never_believed(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=302, headers={"Location": "/b"}))
    fake_server.on("/b", Response(RSS % b""))
    runner.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    for _ in range(MOVED_AFTER + 1):
        runner.run("shop")
    assert state(runner)[2:4] == (None, 0)
    assert [asked.path for asked in fake_server.asked[-2:]] == ["/a", "/b"]


def test_a_source_that_is_gone_is_left_alone_until_it_is_back(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=410))
    runner.declare(source(fake_server))
    assert runner.run("shop")["error"]["code"] == "http_410"
    assert "410" in state(runner)[4]
    runner.sql("UPDATE sources SET next_run_at = clock_timestamp()")
    assert runner.database.transact(claim_slots) == ([], 0)
    fake_server.json("/a", [{"id": 1}])
    assert runner.run("shop")["status"] == "success"
    assert state(runner)[4] is None


def test_warnings_stand_on_the_run(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(RSS % b"<x>&nope;</x>"))
    runner.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    assert runner.run("shop")["status"] == "success"
    assert runner.sql("SELECT detail ->> 'code' FROM etl_run_events WHERE event = 'warning'") == ["feed_warning"]


def test_a_value_that_comes_back_after_a_cancelled_run_is_loaded(runner: SourceRunner, fake_server: FakeServer) -> None:
    """What was known before says nothing once another run has changed what is served."""

    def write(price: int) -> None:
        runner.write("shop.csv", f"id,price\n1,{price}\n2,{price}\n")

    def answer(price: int) -> None:
        fake_server.json("/a", [{"id": 1, "price": price}, {"id": 2, "price": price}])

    for declared, tell in (({"type": "csv", "file": "shop.csv"}, write), (source(fake_server), answer)):
        runner.declare({**declared, "name": "shop", "identity_change": True})
        tell(1)
        runner.run("shop")
        tell(2)
        run_id = runner.queue("shop")
        runner.step()
        runner.step()
        runner.database.transact(end_run, run_id, Outcome(Status.CANCELLED))
        runner.messages.clear()
        tell(1)
        assert runner.run("shop")["status"] == "success"
        assert set(runner.sql("SELECT amount FROM unified_items")) == {1}


def test_a_file_that_comes_back_after_a_partial_run_is_loaded(runner: SourceRunner) -> None:
    (runner.folder / "in").mkdir()
    runner.declare({"name": "shop", "type": "csv", "file": "in"})
    for price, other in ((1, "id,price\n9,1\n"), (2, ""), (1, "id,price\n9,1\n")):
        runner.write("in/x.csv", f"id,price\n1,{price}\n")
        runner.write("in/y.csv", other)
        runner.run("shop")
    assert set(runner.sql("SELECT amount FROM unified_items")) == {1}


def elsewhere(runner: SourceRunner, number: int) -> None:
    """The next slice is on another host, with a disk of its own."""
    runner.settings = replace(runner.settings, state_dir=runner.folder / f"host{number}", batch_size=10)


def test_slices_on_several_hosts_do_not_mix_two_versions_of_a_download(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = 1

    def answer(_: Request) -> Response:
        return Response(b"id,price\n" + b"".join(b"%03d,%d\n" % (n, version) for n in range(100)))

    runner.declare({"name": "shop", "type": "csv", "request": {"url": fake_server.on("/x", answer)}})
    runner.slice_seconds = 0.0
    run_id = runner.queue("shop")
    elsewhere(runner, 1)
    runner.step()
    version = 2
    elsewhere(runner, 2)
    runner.drain()
    assert runner.show(run_id)["status"] == "success"
    assert set(runner.sql("SELECT amount FROM unified_items")) == {2}


def test_a_growing_file_that_is_replaced_in_mid_run_is_read_anew(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.settings = replace(runner.settings, batch_size=10)
    runner.write("log.csv", "id\n" + "".join(f"a{n}\n" for n in range(100)))
    runner.declare({"name": "shop", "type": "csv", "file": "log.csv", "mode": "append"})
    runner.slice_seconds = 0.0
    runner.queue("shop")
    runner.step()
    runner.write("log.csv", "id\n" + "".join(f"b{n}\n" for n in range(150)))
    runner.drain()
    assert runner.sql("SELECT count(*) FROM unified_items WHERE external_id LIKE 'b%'") == [150]


def test_a_daily_source_is_not_starved_by_a_quiet_hour() -> None:
    midnight = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert not may_be_quiet(Schedule(every="24h"), QuietHours(hours=[0]), midnight)
    assert may_be_quiet(Schedule(every="30m"), QuietHours(hours=[0]), midnight)
    assert not may_be_quiet(Schedule(every="30m"), QuietHours(hours=[1]), midnight)


def test_a_limit_by_the_hour_is_waited_for_once_something_is_stored(
    runner: SourceRunner, fake_server: FakeServer
) -> None:
    def answer(asked: Request) -> Response:
        if asked.query["page"] == "2":
            return Response(status=429, headers={"Retry-After": "3600"})
        return as_json([{"id": asked.query["page"]}])

    fake_server.on("/a", answer)
    runner.settings = replace(runner.settings, batch_size=1)
    runner.declare(source(fake_server, paginate={"style": "page"}))
    run = runner.run("shop")
    assert (run["status"], run["stage"]) == ("running", "waiting")


def test_a_slice_that_never_gets_anywhere_ends_the_run(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*_: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr("etl.extract.csv_files.find_files", too_slow)
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"]) == ("failed", "too_slow")


def test_a_move_with_a_secret_is_not_stored(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server.on("/a", lambda asked: Response(status=301, headers={"Location": f"/b?key={asked.query['key']}&x=1"}))
    fake_server.on("/b", Response(RSS % b""))
    runner.settings = replace(runner.settings, environment={"KEY": "s3cret"})
    runner.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a?key=${KEY}"}})
    assert runner.run("shop")["status"] == "success"
    assert state(runner)[2] == fake_server.url + "/b?x=1"


def test_a_page_is_kept_though_its_next_one_cannot_be_had(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.json("/a", {"items": [{"id": 1}], "next": "http://elsewhere.test/"})
    auth = {"kind": "bearer", "token": "${KEY}"}
    runner.settings = replace(runner.settings, environment={"KEY": "s3cret"})
    request = {"url": fake_server.url + "/a", "auth": auth}
    runner.declare(source(fake_server, request=request, records="items", paginate={"style": "next_url"}))
    run = runner.run("shop")
    assert (run["status"], run["records_inserted"], run["error"]["code"]) == ("partial", 1, "foreign_page")


def test_an_unchanged_feed_keeps_its_quiet_hours(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(RSS % b"<ttl>120</ttl><skipHours><hour>3</hour></skipHours>"))
    runner.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    for _ in range(2):
        runner.run("shop")
        assert state(runner)[-1] == {"hours": [3], "interval": 7200.0}
        assert state(runner)[1] == "fresh"


def test_a_pause_outlives_a_change_that_asks_the_same(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=429, headers={"Retry-After": "86400"}))
    runner.declare(source(fake_server))
    runner.run("shop")
    runner.declare(source(fake_server, timeout="3s"))
    assert runner.run("shop")["error"]["code"] == "not_due"
    runner.declare(source(fake_server, request={"url": fake_server.url + "/a", "params": {"b": 1}}))
    # The source is free; its host is not.
    assert runner.run("shop")["error"]["code"] == "postponed"
