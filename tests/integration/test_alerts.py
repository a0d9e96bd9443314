"""Alerts by the way of a message: a run ends, somebody is to be told, and a sink takes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from celery import Celery
from sqlalchemy.exc import ProgrammingError

from broker.telling import forget_telling
from db.queries import outbox
from db.queries.clock import follow_clock
from etl.alerts.destination import parse_destinations
from etl.alerts.message import trial_alert
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter, LocalHostStates
from testkit.fake_server import FakeServer, Request, Response
from testkit.runner import SourceRunner
from testkit.service import Servers
from worker.alerting import Alerting
from worker.courier import Courier
from worker.lookout import Lookout
from worker.outage import Outage

KEY = b"k" * 32
ROWS = "id,title\n1,one\n2,two\n"


class Desk:
    """The steps that judge and send, taken one by one, and a sink that keeps what it took."""

    def __init__(self, runner: SourceRunner, sink: FakeServer, written: str = "{url}/hook") -> None:
        self.runner = runner
        self.sink = sink
        self.taken: list[dict[str, Any]] = []
        self.free = 0.5
        sink.on("/hook", self.take)
        runner.settings = replace(
            runner.settings,
            alert_urls=parse_destinations(written.format(url=sink.url), ("json",)),
            alert_secret=KEY,
            allowed_private_hosts=("127.0.0.1",),
        )
        self.alerting = Alerting(runner.settings, free=lambda _: self.free)
        self.couriers = [Courier(runner.settings, one, runner.database) for one in runner.settings.alert_urls]

    def take(self, request: Request) -> Response:
        timestamp = request.headers["webhook-timestamp"]
        assert abs(int(timestamp) - time.time()) < 60
        signed = b".".join((request.headers["webhook-id"].encode(), timestamp.encode(), request.body))
        signature = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{signature}"
        body = json.loads(request.body)
        assert body["data"]["id"] == request.headers["webhook-id"]
        self.taken.append(body)
        return Response(status=204)

    def judge(self) -> None:
        self.alerting.judge_runs(self.runner.database)

    def look(self) -> None:
        self.alerting._rhythm._last.clear()
        self.alerting.look_around(self.runner.database)

    def send(self) -> None:
        for courier in self.couriers:
            while courier.send_due():
                pass

    def pass_by(self) -> list[str]:
        """A pass of all steps; the titles that the sink took in it."""
        before = len(self.taken)
        self.judge()
        self.send()
        return [body["data"]["title"] for body in self.taken[before:]]

    def fail_unheard(self, status: int) -> None:
        """A run fails, and the sink answers with this; after that it takes what comes."""
        self.sink.on("/hook", Response(status=status))
        self.runner.run("rows")
        assert self.pass_by() == []
        self.sink.on("/hook", self.take)

    def recover(self) -> list[str]:
        """A run succeeds; the titles that the sink took of that."""
        self.runner.write("rows.csv", ROWS)
        self.runner.run("rows")
        return self.pass_by()

    def deliveries(self) -> list[Any]:
        return self.runner.sql("SELECT state, attempts, error FROM alert_deliveries ORDER BY created_at")


@pytest.fixture
def desk(runner: SourceRunner, fake_server: FakeServer) -> Desk:
    runner.declare({"name": "rows", "type": "csv", "file": "rows.csv", "tags": ["money"]})
    return Desk(runner, fake_server)


def test_a_failure_and_its_end_arrive_once_each(desk: Desk) -> None:
    told = []
    for _ in range(10):
        assert desk.runner.run("rows")["status"] == "failed"
        told += desk.pass_by()
    desk.runner.write("rows.csv", ROWS)
    assert desk.runner.run("rows")["status"] == "success"
    told += desk.pass_by()
    assert told == ["rows fails", "Over: rows fails"]
    firing, over = desk.taken
    assert (firing["type"], over["type"]) == ("alert.firing", "alert.recovered")
    assert firing["data"]["causes"][0]["incident"] == over["data"]["causes"][0]["incident"]
    assert firing["data"]["sources"] == over["data"]["sources"] == ["rows"]
    assert "rows.csv" in firing["data"]["message"]
    assert desk.deliveries() == [("sent", 1, None)] * 2
    assert desk.runner.sql("SELECT count(*) FROM alert_sightings") == [0]
    assert desk.runner.sql("SELECT label, value FROM etl_counters WHERE name = 'alerts'") == [("sent", 2)]


def test_a_run_that_goes_well_writes_nothing_down(desk: Desk) -> None:
    desk.runner.write("rows.csv", ROWS)
    desk.runner.run("rows")
    desk.runner.run("rows")
    assert desk.runner.sql("SELECT count(*) FROM alert_sightings") == [0]


def test_what_fails_and_recovers_between_two_looks_is_told_of(desk: Desk) -> None:
    desk.runner.run("rows")
    desk.runner.write("rows.csv", ROWS)
    desk.runner.run("rows")
    assert desk.pass_by() == ["rows fails", "Over: rows fails"]


def test_a_cancelled_run_and_a_skipped_one_say_nothing(desk: Desk) -> None:
    desk.runner.run("rows")
    assert desk.pass_by() == ["rows fails"]
    run_id = desk.runner.queue("rows")
    desk.runner.sql(
        "UPDATE etl_runs SET status = 'skipped', stage = 'done', completed_at = now() WHERE run_id = :id", id=run_id
    )
    desk.runner.messages.clear()
    assert desk.pass_by() == []
    assert desk.runner.sql("SELECT count(*) FROM alert_members") == [1]


def test_a_sink_that_is_down_loses_nothing_and_keeps_the_order(desk: Desk) -> None:
    desk.sink.on("/hook", Response(status=503))
    desk.runner.run("rows")
    desk.runner.write("rows.csv", ROWS)
    desk.runner.run("rows")
    assert desk.pass_by() == []
    assert desk.deliveries()[0][:2] == ("pending", 1)
    assert "answered 503" in desk.deliveries()[0][2]
    assert desk.deliveries()[1] == ("pending", 0, None)
    assert desk.runner.sql("SELECT bool_and(due_at > clock_timestamp() + interval '3 s') FROM alert_deliveries") == [
        True
    ]
    desk.sink.on("/hook", desk.take)
    assert desk.pass_by() == []
    desk.runner.sql("UPDATE alert_deliveries SET due_at = now()")
    assert desk.pass_by() == ["rows fails", "Over: rows fails"]


def test_a_message_that_is_refused_keeps_no_other_back(desk: Desk) -> None:
    answers = [Response(status=400)]
    desk.sink.on("/hook", lambda request: answers.pop() if answers else desk.take(request))
    desk.runner.run("rows")
    desk.runner.write("rows.csv", ROWS)
    desk.runner.run("rows")
    assert desk.pass_by() == ["Over: rows fails"]
    assert [row[0] for row in desk.deliveries()] == ["pending", "sent"]


def test_a_message_is_given_up_after_a_day(desk: Desk) -> None:
    desk.sink.on("/hook", Response(status=500))
    desk.runner.run("rows")
    desk.pass_by()
    desk.runner.sql("UPDATE alert_deliveries SET due_at = now(), created_at = now() - interval '25 h'")
    desk.pass_by()
    assert desk.deliveries()[0][:2] == ("failed", 2)
    assert desk.runner.sql("SELECT label, value FROM etl_counters WHERE name = 'alerts'") == [("failed", 1)]


def test_a_message_that_was_taken_and_not_sent_is_sent_again_with_its_id(desk: Desk) -> None:
    desk.runner.run("rows")
    desk.judge()
    name = desk.runner.settings.alert_urls[0].name
    lost = desk.runner.database.transact(outbox.take_alerts, name, 1, timedelta(0))
    desk.send()
    assert desk.taken == []
    desk.runner.sql("UPDATE alert_deliveries SET taken_until = now()")
    desk.send()
    assert [body["data"]["id"] for body in desk.taken] == [str(lost[0].alert_id)]


def test_two_couriers_send_nothing_twice(desk: Desk) -> None:
    for number in range(30):
        alert = trial_alert(UUID(int=number), datetime.now().astimezone())
        desk.runner.database.transact(outbox.add_alert, alert, desk.runner.settings.alert_urls)
    threads = [threading.Thread(target=desk.send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [body["data"]["id"] for body in desk.taken]
    assert len(ids) == len(set(ids)) == 30


def test_sixty_sources_of_a_dead_host_are_one_message(desk: Desk) -> None:
    url = desk.sink.on("/items", Response(status=503))
    names = [f"s{number:02}" for number in range(60)]
    api = {"type": "api", "records": "@", "timeout": "2s"}
    desk.runner.declare(*({"name": name, **api, "request": {"url": url}} for name in names))
    for name in names:
        desk.runner.run(name)
    told = desk.pass_by()
    assert len(told) == 1
    assert f"127.0.0.1:{desk.sink.port}" in told[0]
    desk.sink.json("/items", [{"id": 1, "title": "one"}])
    desk.runner.limiter = HostLimiter(LocalHostStates(), BreakerPolicy(5, 60), "test")
    for name in names:
        assert desk.runner.run(name)["status"] == "success"
    assert len(desk.pass_by()) == 1
    assert desk.runner.sql("SELECT count(*) FROM alert_members") == [0]


def test_only_sinks_of_its_tags_hear_of_a_source(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(
        {"name": "rows", "type": "csv", "file": "rows.csv", "tags": ["money"]},
        {"name": "other", "type": "csv", "file": "other.csv", "tags": ["sport"]},
        {"name": "plain", "type": "csv", "file": "plain.csv"},
    )
    desk = Desk(runner, fake_server, "{url}/all money={url}/money money,art={url}/both")
    runner.sql("UPDATE sources SET not_before = now() + interval '1 h', not_before_reason = 'set_aside'")
    desk.look()
    found = runner.sql(
        "SELECT facts #>> '{sources,0}', count(*) FROM alert_outbox JOIN alert_deliveries USING (alert_id) GROUP BY 1 ORDER BY 1"
    )
    assert found == [("other", 1), ("plain", 1), ("rows", 3)]


def test_people_get_several_at_once_and_seldom(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare({"name": "rows", "type": "csv", "file": "rows.csv"})
    desk = Desk(runner, fake_server, "json://127.0.0.1:" + str(fake_server.port) + "/people")
    fake_server.on("/people", Response(b"{}"))
    runner.run("rows")
    runner.write("rows.csv", ROWS)
    runner.run("rows")
    assert desk.pass_by() == []
    said = [json.loads(request.body) for request in fake_server.asked]
    assert [one["title"] for one in said] == ["2 alerts: rows fails, …"]
    assert "Over: rows fails" in said[0]["message"]
    assert [row[0] for row in desk.deliveries()] == ["sent", "sent"]
    runner.sql("DELETE FROM alert_incidents")
    (runner.folder / "rows.csv").unlink()
    runner.run("rows")
    desk.pass_by()
    assert len(fake_server.asked) == 1
    runner.sql("UPDATE alert_deliveries SET sent_at = sent_at - interval '61 s'")
    desk.send()
    assert len(fake_server.asked) == 2


def test_why_people_were_not_reached_is_told_without_the_address(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare({"name": "rows", "type": "csv", "file": "rows.csv"})
    desk = Desk(runner, fake_server, f"json://user:password@127.0.0.1:{fake_server.port}/tokenabc/hook")
    fake_server.on("/tokenabc/hook", Response(status=403))
    runner.run("rows")
    desk.pass_by()
    [(state, attempts, error)] = desk.deliveries()
    assert (state, attempts) == ("pending", 1)
    assert error.startswith("json: ")
    assert "tokenabc" not in error
    assert "password" not in error


def test_a_webhook_on_a_private_host_is_not_called(desk: Desk) -> None:
    desk.runner.settings = replace(desk.runner.settings, allowed_private_hosts=())
    desk.couriers = [
        Courier(desk.runner.settings, one, desk.runner.database) for one in desk.runner.settings.alert_urls
    ]
    desk.runner.run("rows")
    assert desk.pass_by() == []
    assert "private network" in desk.deliveries()[0][2]
    assert desk.sink.asked == []


def test_late_set_aside_rejects_and_drift_are_looked_for(desk: Desk) -> None:
    desk.runner.declare(
        *({"name": name, "type": "csv", "file": f"{name}.csv", "alert_rejects": 3} for name in ("a", "b", "c", "d"))
    )
    sql = desk.runner.sql
    sql("INSERT INTO etl_workers (name, kind) VALUES ('worker@here:1', 'worker')")
    sql("UPDATE sources SET late_since = now() - interval '1 h', late_after = 60 WHERE name = 'a'")
    sql("UPDATE sources SET not_before = now() + interval '1 h', not_before_reason = 'set_aside' WHERE name = 'b'")
    desk.runner.write("c.csv", "id,title,rating\n" + "".join(f"{n},t,{'x' if n < 4 else 1}\n" for n in range(40)))
    desk.runner.run("c")
    desk.look()
    desk.send()
    titles = [body["data"]["title"] for body in desk.taken]
    assert sorted(titles) == ["b is set aside", "c has many rejected records"]
    sql("UPDATE alert_members SET due_at = now() WHERE cause = 'late:a'")
    desk.look()
    desk.send()
    assert desk.taken[-1]["data"]["title"] == "a is late"
    sql("UPDATE sources SET late_since = NULL, not_before = NULL, not_before_reason = NULL")
    sql("UPDATE rejected_records SET state = 'discarded'")
    desk.look()
    desk.send()
    assert sorted(body["data"]["title"] for body in desk.taken[3:]) == [
        "Over: a is late",
        "Over: b is set aside",
        "Over: c has many rejected records",
    ]


def test_a_disk_that_fills_is_told_of_once(desk: Desk) -> None:
    told = []
    for free in (0.2, 0.099, 0.12, 0.05, 0.14, 0.151, 0.14):
        desk.free = free
        desk.look()
        desk.send()
        told.append([body["data"]["title"] for body in desk.taken if body["data"]["kind"] == "disk_full"])
    assert told == [
        [],
        *[["a disk is nearly full"]] * 4,
        *[["a disk is nearly full", "Over: a disk is nearly full"]] * 2,
    ]


def test_no_worker_is_told_of_after_a_minute(desk: Desk) -> None:
    desk.look()
    desk.send()
    assert desk.taken == []
    desk.runner.sql("UPDATE alert_members SET due_at = now() WHERE cause = 'no_worker'")
    desk.look()
    desk.send()
    assert [body["data"]["kind"] for body in desk.taken] == ["no_worker"]
    desk.runner.sql("INSERT INTO etl_workers (name, kind) VALUES ('w', 'worker')")
    desk.look()
    desk.send()
    assert [body["type"] for body in desk.taken] == ["alert.firing", "alert.recovered"]


def test_a_paused_source_concerns_nobody(desk: Desk) -> None:
    desk.runner.run("rows")
    desk.pass_by()
    desk.runner.sql("UPDATE sources SET paused_until = 'infinity', paused_at = now()")
    desk.look()
    desk.send()
    assert [body["data"]["title"] for body in desk.taken] == ["rows fails", "Over: rows fails"]


@pytest.fixture
def teller(monkeypatch: pytest.MonkeyPatch, servers: Servers) -> Iterator[Celery]:
    """Where Redis keeps who tells, of outages that are told of at once."""
    monkeypatch.setattr("worker.outage.TOLD_AFTER", 0.0)
    app = Celery(broker=servers.valkey.url)
    monkeypatch.setattr("worker.lookout.make_producer", lambda: app)
    forget_telling(app, "database")
    yield app
    forget_telling(app, "database")


def test_an_outage_is_told_of_from_memory_and_recorded_afterwards(desk: Desk, teller: Celery) -> None:
    outages = [Outage(), Outage()]
    lookouts = [Lookout(desk.runner.settings, desk.runner.database, outage) for outage in outages]
    for turn in (1, 2):
        for _ in range(3):
            for outage, lookout in zip(outages, lookouts, strict=True):
                outage.note("the disk of the database is full")
                lookout.tell_outage()
                lookout.tell_end()
        assert [body["data"]["title"] for body in desk.taken[2 * turn - 2 :]] == ["the database cannot be written to"]
        for outage in outages:
            outage.end()
        for lookout in lookouts * 2:
            lookout.tell_outage()
            lookout.tell_end()
            desk.send()
        assert [body["type"] for body in desk.taken] == ["alert.firing", "alert.recovered"] * turn
    assert desk.runner.sql("SELECT event, count(*) FROM alert_outbox GROUP BY 1 ORDER BY 1") == [
        ("firing", 2),
        ("recovered", 2),
    ]


def test_the_end_of_an_outage_that_cannot_be_written_yet_is_written_later(desk: Desk, teller: Celery) -> None:
    outage = Outage()
    lookout = Lookout(desk.runner.settings, desk.runner.database, outage)
    outage.note("full")
    lookout.tell_outage()
    outage.end()
    desk.runner.sql("ALTER TABLE alert_outbox RENAME TO hidden")
    with pytest.raises(ProgrammingError):
        lookout.tell_end()
    desk.runner.sql("ALTER TABLE hidden RENAME TO alert_outbox")
    lookout.tell_end()
    desk.send()
    assert [body["type"] for body in desk.taken] == ["alert.firing", "alert.recovered"]


def test_an_outage_is_told_of_to_who_was_away_at_first(desk: Desk, teller: Celery) -> None:
    outage = Outage()
    lookout = Lookout(desk.runner.settings, desk.runner.database, outage)
    desk.sink.on("/hook", Response(status=503))
    outage.note("full")
    lookout.tell_outage()
    desk.sink.on("/hook", desk.take)
    lookout.tell_outage()
    lookout.tell_outage()
    assert len(desk.taken) == 1


def test_an_outage_is_told_of_by_another_when_who_should_have_is_gone(
    desk: Desk, teller: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages = [Outage(), Outage()]
    gone, other = (Lookout(desk.runner.settings, desk.runner.database, outage) for outage in outages)
    for outage in outages:
        outage.note("full")
    desk.sink.on("/hook", Response(status=503))
    gone.tell_outage()
    desk.sink.on("/hook", desk.take)
    other.tell_outage()
    assert desk.taken == []
    with teller.connection_for_write() as connection:
        redis = connection.default_channel.client
        assert 0 < redis.ttl("kasparro:teller:database") <= 60
        redis.delete("kasparro:teller:database")
    other.tell_outage()
    other.tell_outage()
    assert len(desk.taken) == 1
    # Whom it has reached nobody tells it again, whoever is gone.
    with teller.connection_for_write() as connection:
        connection.default_channel.client.delete("kasparro:teller:database")
    gone.tell_outage()
    assert len(desk.taken) == 1


def test_an_outage_that_nobody_remembers_is_over_and_the_next_is_told_of(desk: Desk, teller: Celery) -> None:
    """All processes were started anew when the disk had room again."""
    outage = Outage()
    outage.note("full")
    Lookout(desk.runner.settings, desk.runner.database, outage).tell_outage()
    # While that one goes on to tell, nobody else says that it is over.
    early = Lookout(desk.runner.settings, desk.runner.database, Outage())
    early.tell_end()
    desk.send()
    assert [body["type"] for body in desk.taken] == ["alert.firing"]
    with teller.connection_for_write() as connection:
        connection.default_channel.client.delete("kasparro:teller:database")
    fresh = [Outage(), Outage()]
    lookouts = [Lookout(desk.runner.settings, desk.runner.database, one) for one in fresh]
    for lookout in lookouts:
        lookout.tell_outage()
        lookout.tell_end()
        desk.send()
    assert [body["type"] for body in desk.taken] == ["alert.firing", "alert.recovered"]
    fresh[1].note("full again")
    lookouts[1].tell_outage()
    assert [body["type"] for body in desk.taken] == ["alert.firing", "alert.recovered", "alert.firing"]
    assert len({body["data"]["id"] for body in desk.taken}) == 3


def test_whom_an_outage_did_not_reach_gets_its_beginning_too(desk: Desk, teller: Celery) -> None:
    outages = [Outage(), Outage()]
    lookouts = [Lookout(desk.runner.settings, desk.runner.database, outage) for outage in outages]
    desk.sink.on("/hook", Response(status=503))
    for outage, lookout in zip(outages, lookouts, strict=True):
        outage.note("full")
        lookout.tell_outage()
    desk.sink.on("/hook", desk.take)
    # The other one puts it first.
    for outage, lookout in reversed(list(zip(outages, lookouts, strict=True))):
        outage.end()
        lookout.tell_end()
        desk.send()
    assert [body["type"] for body in desk.taken] == ["alert.firing", "alert.recovered"]


def test_what_is_told_later_waits_for_what_an_address_did_not_take(desk: Desk) -> None:
    desk.fail_unheard(503)
    assert desk.recover() == []
    desk.runner.sql("UPDATE alert_deliveries SET due_at = now()")
    assert desk.pass_by() == ["rows fails", "Over: rows fails"]


def test_what_is_never_taken_keeps_the_others_waiting_for_half_an_hour(desk: Desk) -> None:
    desk.fail_unheard(503)
    desk.runner.sql("UPDATE alert_deliveries SET attempts = 12")
    assert desk.recover() == ["Over: rows fails"]


def test_what_is_refused_by_itself_keeps_nothing_waiting(desk: Desk) -> None:
    desk.fail_unheard(400)
    assert desk.recover() == ["Over: rows fails"]


def test_sources_whose_host_is_not_asked_are_told_of_with_it_and_not_as_late(
    runner: SourceRunner, fake_server: FakeServer
) -> None:
    fake_server.on("/items", Response(status=503))
    names = [f"s{n}" for n in range(8)]
    api = {"type": "api", "request": {"url": f"{fake_server.url}/items"}}
    host = fake_server.url.removeprefix("http://")
    runner.declare(*({"name": name, **api} for name in names))
    sink = FakeServer()
    with sink:
        desk = Desk(runner, sink)
        statuses = [runner.run(name)["status"] for name in names]
        assert statuses[0] == "failed"
        assert statuses[-1] == "skipped"
        assert desk.pass_by() == [f"8 sources cannot be read from {host}"]
        runner.sql("UPDATE sources SET late_since = now() - interval '1 h', late_after = 60")
        runner.sql("UPDATE alert_members SET since = since - interval '1 h', due_at = due_at - interval '1 h'")
        desk.look()
        assert desk.pass_by() == []


def test_a_run_that_breaks_off_in_the_middle_ends_nothing(desk: Desk, fake_server: FakeServer) -> None:
    whole, host = [False], fake_server.url.removeprefix("http://")

    def answer(request: Request) -> Response:
        if request.query.get("page", "1") == "1":
            return Response(b'[{"id": 1}]', headers={"Content-Type": "application/json"})
        return Response(b"[]", headers={"Content-Type": "application/json"}) if whole[0] else Response(status=503)

    fake_server.on("/items", answer)
    api = {"name": "api", "type": "api", "request": {"url": f"{fake_server.url}/items"}}
    desk.runner.declare({**api, "paginate": {"style": "page"}})
    assert desk.runner.run("api")["status"] == "partial"
    assert desk.pass_by() == [f"api cannot be read from {host}"]
    desk.runner.run("api")
    assert desk.pass_by() == []
    whole[0] = True
    assert desk.runner.run("api")["status"] == "success"
    assert desk.pass_by() == [f"Over: api cannot be read from {host}"]


def test_a_paused_source_whose_run_goes_on_is_told_of_no_more(desk: Desk) -> None:
    desk.runner.run("rows")
    desk.runner.sql("UPDATE sources SET paused_until = 'infinity', paused_at = now()")
    assert desk.pass_by() == []


def test_a_late_source_that_is_declared_anew_keeps_nothing_else_from_being_seen(desk: Desk) -> None:
    desk.runner.sql("UPDATE sources SET late_since = now() - interval '1 h', late_after = NULL")
    desk.runner.sql("INSERT INTO etl_alarms (code, message) VALUES ('raw_ids_repeated', 'twice')")
    desk.look()
    desk.send()
    assert "alarm" in [body["data"]["kind"] for body in desk.taken]


def test_two_processes_send_to_an_address_in_order(desk: Desk) -> None:
    desk.runner.run("rows")
    desk.runner.write("rows.csv", ROWS)
    desk.runner.run("rows")
    desk.judge()
    name = desk.runner.settings.alert_urls[0].name
    first = desk.runner.database.transact(outbox.take_alerts, name, 1, timedelta(0))
    assert desk.runner.database.transact(outbox.take_alerts, name, 1, timedelta(0)) == []
    desk.runner.database.transact(outbox.note_sent, name, [first[0].alert_id])
    second = desk.runner.database.transact(outbox.take_alerts, name, 1, timedelta(0))
    assert [one.event for one in (*first, *second)] == ["firing", "recovered"]


def test_messages_go_on_after_the_clock_was_set_back(desk: Desk) -> None:
    desk.runner.run("rows")
    assert desk.pass_by() == ["rows fails"]
    ahead = "clock_timestamp() + interval '1 h'"
    desk.runner.sql(
        "INSERT INTO etl_workers (name, kind, seen_at) VALUES ('worker@x:1', 'worker', clock_timestamp() + interval '1 h')"
    )
    desk.runner.sql(f"UPDATE alert_deliveries SET created_at = {ahead}, due_at = {ahead}, sent_at = {ahead}")
    desk.runner.sql(f"UPDATE alert_members SET since = {ahead}, due_at = {ahead}")
    desk.runner.sql(f"UPDATE alert_incidents SET changed_at = {ahead}, told_at = {ahead}, told_times = ARRAY[{ahead}]")
    assert desk.runner.database.transact(follow_clock)
    desk.look()
    desk.send()
    assert [body["data"]["kind"] for body in desk.taken[1:]] == ["alarm"]
    desk.runner.write("rows.csv", ROWS)
    desk.runner.run("rows")
    assert desk.pass_by() == ["Over: rows fails"]


def test_a_disk_that_cannot_be_looked_at_keeps_nothing_else_from_being_seen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> float:
        raise PermissionError(13, "no", str(folder))

    monkeypatch.setattr("tempfile.gettempdir", Mock(side_effect=FileNotFoundError))
    desk.alerting = Alerting(desk.runner.settings, free=broken)
    desk.runner.sql("UPDATE sources SET not_before = now() + interval '1 h', not_before_reason = 'set_aside'")
    desk.look()
    desk.send()
    assert sorted(body["data"]["kind"] for body in desk.taken) == ["disk_full", "set_aside"]
    # Once there is room again, there is no disk of that name.
    monkeypatch.undo()
    desk.alerting = Alerting(desk.runner.settings, free=lambda _: 0.5)
    desk.look()
    desk.send()
    assert [body["data"]["title"] for body in desk.taken[2:]] == ["Over: a disk is nearly full"]


def test_the_disk_of_a_machine_that_is_gone_is_over(desk: Desk) -> None:
    desk.runner.sql("""
        INSERT INTO alert_members (cause, name, since, due_at, message)
        VALUES ('disk_full:gone /tmp', 'gone /tmp', now(), now(), 'full'), ('disk_full:here /tmp', 'here /tmp', now(), now(), 'full');
        INSERT INTO etl_workers (name, kind) VALUES ('worker@here:12', 'worker')
    """)
    desk.look()
    assert desk.runner.sql("SELECT cause FROM alert_members WHERE cause LIKE 'disk%'") == ["disk_full:here /tmp"]


def test_a_secret_of_an_address_without_a_path_is_not_told(desk: Desk) -> None:
    port = desk.sink.port
    desk.runner.settings = replace(
        desk.runner.settings, alert_urls=parse_destinations(f"http://127.0.0.1:{port}?token=S3CRET", ())
    )
    desk.couriers = [
        Courier(desk.runner.settings, one, desk.runner.database) for one in desk.runner.settings.alert_urls
    ]
    desk.alerting = Alerting(desk.runner.settings)
    desk.runner.run("rows")
    desk.pass_by()
    assert "answered 404" in desk.deliveries()[0][2]
    assert "S3CRET" not in desk.deliveries()[0][2]


def test_the_heartbeat_beats_while_all_is_well(desk: Desk) -> None:
    desk.sink.on("/beat", Response())
    settings = replace(desk.runner.settings, heartbeat_url=desk.sink.url + "/beat")
    lookouts = [Lookout(settings, desk.runner.database, Outage()) for _ in range(2)]

    def beats() -> int:
        before = len(desk.sink.asked)
        desk.runner.sql("UPDATE etl_looks SET looked_at = now() - interval '61 s' WHERE name = 'heartbeat'")
        for lookout in lookouts:
            lookout._rhythm._last.clear()
            lookout.say_well()
        return len(desk.sink.asked) - before

    assert beats() == 0
    desk.runner.sql("INSERT INTO etl_workers (name, kind) VALUES ('w', 'worker')")
    assert beats() == 1
    desk.runner.sql("INSERT INTO etl_alarms (code, message) VALUES ('raw_ids_repeated', 'twice')")
    assert beats() == 0


def test_old_messages_are_removed(desk: Desk) -> None:
    desk.runner.run("rows")
    desk.pass_by()
    desk.runner.sql("UPDATE alert_outbox SET created_at = now() - interval '91 d'")
    assert desk.runner.database.transact(outbox.purge_alerts, timedelta(days=90), 100) == 1
    assert desk.runner.sql("SELECT count(*) FROM alert_deliveries") == [0]


def test_messages_to_addresses_that_are_gone_are_given_up(desk: Desk) -> None:
    desk.runner.run("rows")
    desk.judge()
    desk.runner.database.transact(outbox.give_up_unknown, ["another"])
    assert desk.deliveries()[0][0] == "pending"
    desk.runner.sql("UPDATE alert_deliveries SET created_at = now() - interval '25 h'")
    desk.runner.database.transact(outbox.give_up_unknown, ["another"])
    assert desk.deliveries()[0][0] == "failed"
