"""Slow sources have a share of the pool; deadly ones are set aside."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from db.queries import share
from db.queries.processes import beat_heart
from db.queries.runs import NewRun, claim_run, queue_run
from db.queries.slots import claim_slots
from etl.runs.messages import ExtractMessage
from etl.runs.outcome import Trigger
from testkit.fake_server import FakeServer, Request, Response
from testkit.runner import SourceRunner
from worker import adhoc


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def api(name: str, url: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": "api", "request": {"url": url}, **more}


def queue(runner: SourceRunner, name: str) -> bool:
    queued = runner.database.transact(queue_run, NewRun(uuid4(), name, "api", Trigger.API))
    assert queued
    return queued.is_sent


def source(runner: SourceRunner, name: str = "shop") -> tuple[object, ...]:
    (row,) = runner.sql("SELECT answered_at IS NOT NULL, misses, deaths FROM sources WHERE name = :name", name=name)
    return tuple(row)


def test_a_source_that_answers_is_slow_no_more(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(api("shop", fake_server.json("/a", [{"id": 1}])))
    assert source(runner) == (False, 0, 0)
    assert runner.run("shop")["status"] == "success"
    assert source(runner) == (True, 0, 0)
    assert queue(runner, "shop"), "it is sent for at once"


def test_a_wait_holds_no_process(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(api("shop", fake_server.on("/a", Response(status=503, headers={"Retry-After": "3"}))))
    run_id = runner.queue("shop")
    started = time.monotonic()
    runner.step()
    assert time.monotonic() - started < 1
    assert (runner.show(run_id)["stage"], runner.messages) == ("waiting", [])


def test_a_source_that_never_answered_is_tried_briefly(runner: SourceRunner, silent: str) -> None:
    runner.declare(api("shop", silent))
    runner.queue("shop")
    started = time.monotonic()
    runner.step()
    assert 0.9 < time.monotonic() - started < 3
    assert source(runner) == (False, 1, 0)


def test_slow_sources_are_sent_for_one_by_one(runner: SourceRunner, silent: str) -> None:
    names = [f"s{number}" for number in range(4)]
    runner.declare(*(api(name, silent) for name in names))
    assert [queue(runner, name) for name in names] == [False] * 4
    runner.database.transact(beat_heart, "worker@a:1", "worker", 4)
    first = runner.database.transact(share.send_slow_runs)
    assert len(first) == 2, "half of four processes"
    assert runner.database.transact(share.send_slow_runs) == []
    waiting = runner.sql("SELECT run_id FROM etl_runs WHERE dispatched_at IS NULL")
    assert runner.database.transact(claim_run, waiting[0], "w", 60) is None, "not sent for, not to be had"
    runner.step(first[0])
    assert len(runner.messages) == 1, "who ends such a slice sends the next"


def test_healthy_sources_do_not_wait_for_slow_ones(runner: SourceRunner, silent: str, fake_server: FakeServer) -> None:
    good = [api(f"good{n}", fake_server.json(f"/{n}", [])) for n in range(5)]
    runner.declare(*good, *(api(f"bad{n}", silent) for n in range(20)))
    for n in range(5):
        runner.run(f"good{n}")
    runner.sql("UPDATE sources SET next_run_at = now() - interval '1 s'")
    runs, claimed = runner.database.transact(claim_slots)
    assert claimed == 25
    sent = runner.sql("SELECT source_name FROM etl_runs WHERE run_id = ANY (:runs) ORDER BY 1", runs=runs)
    assert [name for name in sent if name.startswith("good")] == [f"good{n}" for n in range(5)]
    assert len(sent) == 6, "and one of the others"


def test_a_dripping_answer_makes_a_source_slow(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etl.runs.share.RATE_WINDOW", 0.5)

    def drip(handler: object) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n[")  # type: ignore[attr-defined]
        for _ in range(100):
            handler.wfile.write(b" ")  # type: ignore[attr-defined]
            time.sleep(0.1)

    fake_server.on("/a", [Response(b"[]"), Response(raw=drip)])
    runner.declare(api("shop", fake_server.url + "/a"))
    runner.run("shop")
    run_id = runner.queue("shop")
    started = time.monotonic()
    runner.step()
    assert time.monotonic() - started < 5
    assert source(runner) == (True, 1, 0)
    assert runner.show(run_id)["stage"] == "waiting"


def _die(runner: SourceRunner, name: str = "shop") -> share.Death | None:
    run_id = runner.queue(name)
    runner.messages.clear()
    claim = runner.database.transact(claim_run, run_id, "w", 60)
    assert claim
    death = runner.database.transact(share.note_death, run_id, claim.token, "it ended by a signal")
    runner.sql("UPDATE etl_runs SET status = 'failed' WHERE status = 'running'")
    return death


def test_three_deaths_set_a_source_aside(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(api("shop", fake_server.json("/a", [])))
    assert [(_die(runner) or share.Death("", 0, 0)).set_aside for _ in range(3)] == [None, None, 3600.0]
    assert runner.sql("SELECT error_code FROM etl_runs WHERE error_code IS NOT NULL") == ["process_died"]
    runner.sql("UPDATE sources SET next_run_at = now() - interval '1 s'")
    assert runner.database.transact(claim_slots) == ([], 1)
    assert runner.sql("SELECT status, error_code FROM etl_runs ORDER BY created_at DESC LIMIT 1") == [
        ("skipped", "set_aside")
    ]
    assert adhoc.queue(runner.database, uuid4(), "shop") == []
    assert runner.database.transact(share.forget_deaths, "shop")
    assert not runner.database.transact(share.forget_deaths, "shop")
    assert runner.run("shop")["status"] == "success"


def test_an_edit_ends_the_time_that_a_source_is_set_aside(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(api("shop", fake_server.json("/a", [])))
    for _ in range(3):
        _die(runner)
    runner.declare(api("shop", fake_server.url + "/a", timeout="7s"))
    assert source(runner)[2] == 0
    assert runner.sql("SELECT not_before FROM sources") == [None]


def test_a_run_that_ends_well_forgives_deaths(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(api("shop", fake_server.json("/a", [{"id": 1}])))
    _die(runner)
    _die(runner)
    assert source(runner)[2] == 2
    assert runner.run("shop")["status"] == "success"
    assert source(runner)[2] == 0
    assert queue(runner, "shop")


def test_a_claim_that_is_held_no_more_blames_nobody(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(api("shop", fake_server.json("/a", [])))
    run_id = runner.queue("shop")
    claim = runner.database.transact(claim_run, run_id, "w", 60)
    assert claim
    held = [(run_id, claim.token)]
    assert runner.database.transact(share.lost_runs, held) == set()
    assert runner.database.transact(share.lost_runs, [(run_id, claim.token - 1)]) == {(run_id, claim.token - 1)}
    runner.sql("UPDATE etl_runs SET status = 'cancelled', token = token + 1")
    assert runner.database.transact(share.lost_runs, held) == set(held)
    assert runner.database.transact(share.note_death, run_id, claim.token, "x") is None


def test_memory_beyond_the_limit_fails_the_run_by_name(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swelling(_: Request) -> Response:
        return Response(b"[]")

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    runner.declare(api("shop", fake_server.on("/a", swelling)))
    monkeypatch.setattr("etl.extract.api.open_document", full)
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"]) == ("failed", "out_of_memory")
    assert source(runner)[2] == 1


def test_a_message_for_a_slow_run_that_was_lost_is_sent_again(runner: SourceRunner, silent: str) -> None:
    runner.declare(api("shop", silent))
    queue(runner, "shop")
    (message,) = runner.database.transact(share.send_slow_runs)
    assert isinstance(message, ExtractMessage)
    runner.sql("UPDATE etl_runs SET dispatched_at = dispatched_at - interval '1 hour'")
    runner.messages.clear()
    runner._wake()
    from db.queries import sweep

    assert runner.database.transact(sweep.due_runs, queue_empty=True) == [message]


def test_a_run_that_keeps_killing_processes_ends_whatever_killed_it(
    runner: SourceRunner, fake_server: FakeServer
) -> None:
    """Leases that ran out and deaths share the attempts of a run: after the last, nobody could claim it any more."""
    runner.declare(api("shop", fake_server.json("/a", [])))
    run_id = runner.queue("shop")
    runner.messages.clear()
    runner.sql("UPDATE etl_runs SET attempt = 4")
    claim = runner.database.transact(claim_run, run_id, "w", 60)
    assert claim
    runner.database.transact(share.note_death, run_id, claim.token, "it ended by a signal")
    assert runner.show(run_id)["status"] == "failed"


def test_a_slice_that_ended_in_time_blames_nobody(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.declare(api("shop", fake_server.on("/a", Response(status=503))))
    run_id = runner.queue("shop")
    runner.step()
    (token,) = runner.sql("SELECT token FROM etl_runs")
    assert runner.show(run_id)["stage"] == "waiting"
    assert runner.database.transact(share.note_death, run_id, token, "it computed") is None
    assert source(runner)[2] == 0
