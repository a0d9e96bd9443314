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
from testkit.runner import Pump

RSS = (
    b'<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>%s'
    b"<item><guid>g1</guid><title>One</title></item></channel></rss>"
)


def source(fake_server: FakeServer, **more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "api", "request": {"url": fake_server.url + "/a"}, "timeout": "2s", **more}


def state(pump: Pump) -> tuple[Any, ...]:
    (row,) = pump.sql("SELECT not_before, not_before_reason, moved_to, moved_count, gone_reason, rest FROM sources")
    return tuple(row)


def marked(body: Any, etag: str) -> Any:
    def answer(asked: Request) -> Response:
        if asked.headers.get("if-none-match") == etag:
            return Response(status=304)
        return replace(as_json(body), headers={"ETag": etag})

    return answer


def test_an_unchanged_source_costs_one_request_and_no_row(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"id": 1}, {"id": 2}], '"x"'))
    pump.declare(source(fake_server))
    assert pump.run("shop")["records_inserted"] == 2
    before = pump.sql("SELECT id, change_xid::text, xmin::text FROM unified_items ORDER BY id")
    run = pump.run("shop")
    assert (run["status"], run["records_extracted"]) == ("success", 0)
    assert len(fake_server.asked) == 2
    assert pump.sql("SELECT count(*) FROM raw_data") == [2]
    assert pump.sql("SELECT id, change_xid::text, xmin::text FROM unified_items ORDER BY id") == before


def test_a_source_with_rejects_is_asked_for_everything_again(pump: Pump, fake_server: FakeServer) -> None:
    """Else the next run would look well."""
    fake_server.on("/a", marked([{"id": 1}, {"id": 2}, {"name": "no id"}], '"x"'))
    pump.declare(source(fake_server))
    for _ in range(2):
        run = pump.run("shop")
        assert (run["status"], run["records_failed"]) == ("partial", 1)


def test_a_run_that_failed_leaves_no_mark(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"name": "no id"}], '"x"'))
    pump.declare(source(fake_server))
    assert pump.run("shop")["status"] == "failed"
    fake_server.on("/a", marked([{"id": 1}], '"x"'))
    assert pump.run("shop")["records_inserted"] == 1


def test_a_cancelled_run_leaves_no_mark(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"id": 1}], '"x"'))
    pump.declare(source(fake_server))
    run_id = pump.queue("shop")
    pump.step()
    pump.database.transact(end_run, run_id, Outcome(Status.CANCELLED))
    pump.drain()
    assert pump.run("shop")["records_inserted"] == 1


def test_another_mapping_asks_for_everything_again(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", marked([{"id": 1, "a": "x", "b": "y"}], '"x"'))
    pump.declare(source(fake_server, map={"external_id": "id", "title": "a"}))
    pump.run("shop")
    pump.declare(source(fake_server, map={"external_id": "id", "title": "b"}))
    assert pump.run("shop")["records_updated"] == 1
    assert pump.sql("SELECT title FROM unified_items") == ["y"]
    assert pump.run("shop")["records_extracted"] == 0


def test_a_watermark_outlives_an_empty_answer(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.json("/a", [{"id": 1, "at": "2026-01-01T00:00:00Z"}])
    pump.declare(source(fake_server, incremental={"field": "at", "param": "since"}))
    pump.run("shop")
    fake_server.json("/a", [])
    pump.run("shop")
    pump.run("shop")
    assert [asked.query.get("since") for asked in fake_server.asked] == [None, *["2026-01-01T00:00:00Z"] * 2]


def due(pump: Pump) -> list[tuple[str, str | None]]:
    """Let the next slot come, and see what becomes of it."""
    pump.sql("DELETE FROM etl_runs WHERE scheduled_for IS NOT NULL")
    pump.sql("UPDATE sources SET next_run_at = clock_timestamp()")
    pump.database.transact(claim_slots)
    found = pump.sql(
        "SELECT status, error_code FROM etl_runs WHERE scheduled_for IS NOT NULL ORDER BY created_at DESC LIMIT 1"
    )
    pump.sql("UPDATE etl_runs SET status = 'cancelled', completed_at = now() WHERE status = 'queued'")
    return found


def test_a_fresh_answer_spaces_the_polls(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", replace(as_json([{"id": 1}]), headers={"Cache-Control": "max-age=3600"}))
    pump.declare(source(fake_server))
    pump.run("shop")
    not_before, reason, *_ = state(pump)
    assert reason == "fresh"
    assert timedelta(minutes=59) < not_before - datetime.now(UTC) <= timedelta(hours=1)
    assert due(pump) == [("skipped", "not_due")]
    # By hand it can be run all the same.
    assert pump.run("shop")["status"] == "success"
    fake_server.json("/a", [{"id": 1}])
    pump.run("shop")
    assert state(pump)[0] is None
    assert due(pump) == [("queued", None)]


def test_the_cache_can_be_left_out_of_it(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", replace(as_json([{"id": 1}]), headers={"Cache-Control": "max-age=3600"}))
    pump.declare(source(fake_server, honour_cache=False))
    pump.run("shop")
    assert state(pump)[0] is None


def test_a_feed_says_when_it_is_quiet(pump: Pump, fake_server: FakeServer) -> None:
    hours = b"".join(b"<hour>%d</hour>" % hour for hour in range(24) if hour != (datetime.now(UTC).hour + 12) % 24)
    fake_server.on("/a", Response(RSS % (b"<ttl>0</ttl><skipHours>%s</skipHours>" % hours)))
    pump.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    pump.run("shop")
    assert len(state(pump)[-1]["hours"]) == 23
    assert due(pump) == [("skipped", "not_due")]


def test_a_long_pause_skips_the_run_and_those_after_it(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=429, headers={"Retry-After": "86400"}))
    pump.declare(source(fake_server))
    run = pump.run("shop")
    assert (run["status"], run["error"]["code"]) == ("skipped", "postponed")
    assert due(pump) == [("skipped", "not_due")]
    run = pump.run("shop")
    assert (run["status"], run["error"]["code"]) == ("skipped", "not_due")
    assert len(fake_server.asked) == 1


def test_a_long_pause_in_mid_run_keeps_what_was_read(pump: Pump, fake_server: FakeServer) -> None:
    def answer(asked: Request) -> Response:
        if asked.query["page"] == "2":
            return Response(status=503, headers={"Retry-After": "86400"})
        return as_json([{"id": 1}])

    fake_server.on("/a", answer)
    pump.declare(source(fake_server, paginate={"style": "page"}))
    run = pump.run("shop")
    assert (run["status"], run["records_inserted"], run["error"]["code"]) == ("partial", 1, "postponed")


def test_an_open_breaker_skips_the_run(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=503))
    pump.settings = replace(pump.settings, max_retries=0)
    pump.declare(source(fake_server))
    statuses = [pump.run("shop")["status"] for _ in range(7)]
    assert statuses == ["failed"] * 5 + ["skipped"] * 2
    assert len(fake_server.asked) == 5


def test_a_move_is_believed_when_it_is_repeated(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=301, headers={"Location": "/b"}))
    fake_server.on("/b", Response(RSS % b""))
    pump.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    for _ in range(MOVED_AFTER):
        assert pump.run("shop")["status"] == "success"
    assert state(pump)[2:4] == (fake_server.url + "/b", MOVED_AFTER)
    fake_server.asked.clear()
    assert pump.run("shop")["status"] == "success"
    assert [asked.path for asked in fake_server.asked] == ["/b"]
    # When the new address does not serve it either, the declared one is asked again.
    fake_server.on("/b", Response(status=404))
    assert pump.run("shop")["status"] == "failed"
    assert state(pump)[2:4] == (None, 0)


def test_a_move_for_a_while_is_never_believed(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=302, headers={"Location": "/b"}))
    fake_server.on("/b", Response(RSS % b""))
    pump.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    for _ in range(MOVED_AFTER + 1):
        pump.run("shop")
    assert state(pump)[2:4] == (None, 0)
    assert [asked.path for asked in fake_server.asked[-2:]] == ["/a", "/b"]


def test_a_source_that_is_gone_is_left_alone_until_it_is_back(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=410))
    pump.declare(source(fake_server))
    assert pump.run("shop")["error"]["code"] == "http_410"
    assert "410" in state(pump)[4]
    pump.sql("UPDATE sources SET next_run_at = clock_timestamp()")
    assert pump.database.transact(claim_slots) == ([], 0)
    fake_server.json("/a", [{"id": 1}])
    assert pump.run("shop")["status"] == "success"
    assert state(pump)[4] is None


def test_warnings_stand_on_the_run(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(RSS % b"<x>&nope;</x>"))
    pump.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    assert pump.run("shop")["status"] == "success"
    assert pump.sql("SELECT detail ->> 'code' FROM etl_run_events WHERE event = 'warning'") == ["feed_warning"]


def test_a_value_that_comes_back_after_a_cancelled_run_is_loaded(pump: Pump, fake_server: FakeServer) -> None:
    """What was known before says nothing once another run has changed what is served."""

    def write(price: int) -> None:
        pump.write("shop.csv", f"id,price\n1,{price}\n2,{price}\n")

    def answer(price: int) -> None:
        fake_server.json("/a", [{"id": 1, "price": price}, {"id": 2, "price": price}])

    for declared, tell in (({"type": "csv", "file": "shop.csv"}, write), (source(fake_server), answer)):
        pump.declare({**declared, "name": "shop", "identity_change": True})
        tell(1)
        pump.run("shop")
        tell(2)
        run_id = pump.queue("shop")
        pump.step()
        pump.step()
        pump.database.transact(end_run, run_id, Outcome(Status.CANCELLED))
        pump.messages.clear()
        tell(1)
        assert pump.run("shop")["status"] == "success"
        assert set(pump.sql("SELECT amount FROM unified_items")) == {1}


def test_a_file_that_comes_back_after_a_partial_run_is_loaded(pump: Pump) -> None:
    (pump.folder / "in").mkdir()
    pump.declare({"name": "shop", "type": "csv", "file": "in"})
    for price, other in ((1, "id,price\n9,1\n"), (2, ""), (1, "id,price\n9,1\n")):
        pump.write("in/x.csv", f"id,price\n1,{price}\n")
        pump.write("in/y.csv", other)
        pump.run("shop")
    assert set(pump.sql("SELECT amount FROM unified_items")) == {1}


def elsewhere(pump: Pump, number: int) -> None:
    """The next slice is on another host, with a disk of its own."""
    pump.settings = replace(pump.settings, state_dir=pump.folder / f"host{number}", batch_size=10)


def test_slices_on_several_hosts_do_not_mix_two_versions_of_a_download(
    pump: Pump, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = 1

    def answer(_: Request) -> Response:
        return Response(b"id,price\n" + b"".join(b"%03d,%d\n" % (n, version) for n in range(100)))

    pump.declare({"name": "shop", "type": "csv", "request": {"url": fake_server.on("/x", answer)}})
    pump.slice_seconds = 0.0
    run_id = pump.queue("shop")
    elsewhere(pump, 1)
    pump.step()
    version = 2
    elsewhere(pump, 2)
    pump.drain()
    assert pump.show(run_id)["status"] == "success"
    assert set(pump.sql("SELECT amount FROM unified_items")) == {2}


def test_a_growing_file_that_is_replaced_in_mid_run_is_read_anew(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    pump.settings = replace(pump.settings, batch_size=10)
    pump.write("log.csv", "id\n" + "".join(f"a{n}\n" for n in range(100)))
    pump.declare({"name": "shop", "type": "csv", "file": "log.csv", "mode": "append"})
    pump.slice_seconds = 0.0
    pump.queue("shop")
    pump.step()
    pump.write("log.csv", "id\n" + "".join(f"b{n}\n" for n in range(150)))
    pump.drain()
    assert pump.sql("SELECT count(*) FROM unified_items WHERE external_id LIKE 'b%'") == [150]


def test_a_daily_source_is_not_starved_by_a_quiet_hour() -> None:
    midnight = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert not may_be_quiet(Schedule(every="24h"), QuietHours(hours=[0]), midnight)
    assert may_be_quiet(Schedule(every="30m"), QuietHours(hours=[0]), midnight)
    assert not may_be_quiet(Schedule(every="30m"), QuietHours(hours=[1]), midnight)


def test_a_limit_by_the_hour_is_waited_for_once_something_is_stored(pump: Pump, fake_server: FakeServer) -> None:
    def answer(asked: Request) -> Response:
        if asked.query["page"] == "2":
            return Response(status=429, headers={"Retry-After": "3600"})
        return as_json([{"id": asked.query["page"]}])

    fake_server.on("/a", answer)
    pump.settings = replace(pump.settings, batch_size=1)
    pump.declare(source(fake_server, paginate={"style": "page"}))
    run = pump.run("shop")
    assert (run["status"], run["stage"]) == ("running", "waiting")


def test_a_slice_that_never_gets_anywhere_ends_the_run(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*_: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr("etl.extract.csv_files.find_files", too_slow)
    pump.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    run = pump.run("shop")
    assert (run["status"], run["error"]["code"]) == ("failed", "too_slow")


def test_a_move_with_a_secret_is_not_stored(
    pump: Pump, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server.on("/a", lambda asked: Response(status=301, headers={"Location": f"/b?key={asked.query['key']}&x=1"}))
    fake_server.on("/b", Response(RSS % b""))
    pump.settings = replace(pump.settings, environment={"KEY": "s3cret"})
    pump.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a?key=${KEY}"}})
    assert pump.run("shop")["status"] == "success"
    assert state(pump)[2] == fake_server.url + "/b?x=1"


def test_a_page_is_kept_though_its_next_one_cannot_be_had(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.json("/a", {"items": [{"id": 1}], "next": "http://elsewhere.test/"})
    auth = {"kind": "bearer", "token": "${KEY}"}
    pump.settings = replace(pump.settings, environment={"KEY": "s3cret"})
    request = {"url": fake_server.url + "/a", "auth": auth}
    pump.declare(source(fake_server, request=request, records="items", paginate={"style": "next_url"}))
    run = pump.run("shop")
    assert (run["status"], run["records_inserted"], run["error"]["code"]) == ("partial", 1, "foreign_page")


def test_an_unchanged_feed_keeps_its_quiet_hours(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(RSS % b"<ttl>120</ttl><skipHours><hour>3</hour></skipHours>"))
    pump.declare({"name": "shop", "type": "rss", "request": {"url": fake_server.url + "/a"}})
    for _ in range(2):
        pump.run("shop")
        assert state(pump)[-1] == {"hours": [3], "interval": 7200.0}
        assert state(pump)[1] == "fresh"


def test_a_pause_outlives_a_change_that_asks_the_same(pump: Pump, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=429, headers={"Retry-After": "86400"}))
    pump.declare(source(fake_server))
    pump.run("shop")
    pump.declare(source(fake_server, timeout="3s"))
    assert pump.run("shop")["error"]["code"] == "not_due"
    pump.declare(source(fake_server, request={"url": fake_server.url + "/a", "params": {"b": 1}}))
    # The source is free; its host is not.
    assert pump.run("shop")["error"]["code"] == "postponed"
