"""Why a source is late: each cause made to be, and named first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.host_states import RedisHostStates
from db.queries.slots import claim_slots
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter
from etl.runs.why import Cause
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app
from worker import __main__ as commands

EVERY_HOUR = {"every": "1h"}


@pytest.fixture
def well(runner: SourceRunner) -> SourceRunner:
    """A source that has run, a worker and a scheduler."""
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv", "schedule": EVERY_HOUR})
    runner.run("shop")
    alive(runner, "worker", "beat")
    return runner


def alive(runner: SourceRunner, *kinds: str) -> None:
    for kind in kinds:
        runner.sql("INSERT INTO etl_workers (name, kind, processes) VALUES (:kind, :kind, 2)", kind=kind)


def why(runner: SourceRunner, name: str = "shop", **settings: Any) -> dict[str, Any]:
    with create_app(replace(runner.settings, **settings), runner.database).test_client() as client:
        answer = client.get(f"/sources/{name}/why")
        assert answer.status_code == 200, answer.text
        return answer.get_json()  # type: ignore[no-any-return]


def first(runner: SourceRunner, name: str = "shop", **settings: Any) -> Any:
    found = why(runner, name, **settings)
    assert found["on_time"] is False
    return found["reasons"][0]


def test_on_time_and_well_says_nothing(well: SourceRunner, capsys: pytest.CaptureFixture[str]) -> None:
    assert why(well) == {"source_name": "shop", "on_time": True, "reasons": []}


def test_one_that_was_never_due_yet_is_on_time(well: SourceRunner) -> None:
    well.declare({"name": "new", "type": "csv", "file": "shop.csv", "schedule": EVERY_HOUR})
    assert why(well, "new")["reasons"] == []


def test_disabled_and_paused(well: SourceRunner) -> None:
    well.sql("UPDATE sources SET paused_until = clock_timestamp() + interval '1 h'")
    paused = first(well)
    assert paused["code"] == Cause.DISABLED_OR_PAUSED
    assert paused["until"]
    assert "/sources/shop/resume" in paused["action"]
    well.sql("UPDATE sources SET enabled = false, gone_reason = 'it left'")
    assert [reason["message"] for reason in why(well)["reasons"]] == ["the source is disabled"]


def test_gone(well: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/x", Response(status=410))
    well.declare({"name": "left", "type": "api", "request": {"url": fake_server.url + "/x"}, "schedule": EVERY_HOUR})
    well.run("left")
    assert first(well, "left")["code"] == Cause.GONE


def test_set_aside(well: SourceRunner) -> None:
    well.sql(
        "UPDATE sources SET deaths = 3, death_cause = 'it ate all memory', not_before_reason = 'set_aside',"
        " not_before = clock_timestamp() + interval '1 h'"
    )
    found = first(well)
    assert found["code"] == Cause.SET_ASIDE
    assert "it ate all memory" in found["message"]


def test_no_schedule(well: SourceRunner) -> None:
    assert first(well, enable_scheduler=False)["code"] == Cause.NO_SCHEDULE


def test_scheduler_silent(well: SourceRunner) -> None:
    well.sql("UPDATE sources SET next_run_at = clock_timestamp() - interval '20 s'")
    found = first(well)
    assert found["code"] == Cause.SCHEDULER_SILENT
    assert found["since"]


def test_no_worker(well: SourceRunner) -> None:
    well.queue("shop")
    well.sql("DELETE FROM etl_workers WHERE kind = 'worker'")
    assert first(well)["code"] == Cause.NO_WORKER


def test_waiting_in_queue(well: SourceRunner) -> None:
    names = [f"other_{number}" for number in range(3)]
    well.declare(
        *({"name": name, "type": "csv", "file": "shop.csv", "schedule": EVERY_HOUR} for name in (*names, "shop"))
    )
    for name in (*names, "shop"):
        well.queue(name)
    assert why(well)["reasons"] == [], "it was asked for just now"
    well.sql("UPDATE etl_runs SET created_at = created_at - interval '1 min' WHERE status = 'queued'")
    found = first(well)
    assert found["code"] == Cause.WAITING_IN_QUEUE
    assert "with 3 before it" in found["message"]


def test_slow_share(well: SourceRunner) -> None:
    well.declare({"name": "slow", "type": "api", "request": {"url": "http://slow.test/"}, "schedule": EVERY_HOUR})
    well.queue("slow")
    well.sql("UPDATE etl_runs SET dispatched_at = NULL WHERE source_name = 'slow'")
    # Whatever was just asked for is on time.
    assert why(well, "slow")["reasons"] == []
    well.sql("UPDATE etl_runs SET created_at = created_at - interval '11 s' WHERE source_name = 'slow'")
    assert first(well, "slow")["code"] == Cause.SLOW_SHARE


def test_run_active(well: SourceRunner) -> None:
    well.queue("shop")
    well.sql("UPDATE etl_runs SET status = 'running', stage = 'extracting' WHERE status = 'queued'")
    assert why(well)["reasons"] == []
    well.sql("UPDATE sources SET next_run_at = clock_timestamp()")
    well.database.transact(claim_slots)
    found = first(well)
    assert found["code"] == Cause.RUN_ACTIVE
    assert "/cancel" in found["action"]


def test_it_waits_to_try_again(well: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/x", Response(status=503))
    well.declare({"name": "flaky", "type": "api", "request": {"url": fake_server.url + "/x"}, "schedule": EVERY_HOUR})
    run_id = well.queue("flaky")
    well.step()
    assert well.sql("SELECT stage FROM etl_runs WHERE run_id = :id", id=run_id) == ["waiting"]
    found = first(well, "flaky")
    assert found["code"] == Cause.RUN_ACTIVE
    assert "503" in found["message"]
    assert found["until"]


def test_server_asked_to_wait(well: SourceRunner) -> None:
    for reason, word in (("asked", "asked not to be asked"), ("fresh", "stays fresh")):
        well.sql(
            "UPDATE sources SET not_before_reason = :reason, not_before = next_run_at + interval '1 h'", reason=reason
        )
        found = first(well)
        assert found["code"] == Cause.SERVER_ASKED_TO_WAIT
        assert word in found["message"]
    well.sql("UPDATE sources SET not_before = next_run_at - interval '1 s'")
    assert why(well)["reasons"] == [], "no slot falls into it"


@pytest.fixture
def far(well: SourceRunner) -> SourceRunner:
    well.declare({"name": "far", "type": "api", "request": {"url": "http://far.test/x"}, "schedule": EVERY_HOUR})
    RedisHostStates().reset("far.test")
    resting(well)
    return well


def resting(runner: SourceRunner) -> None:
    """Its next slot is an hour away, whatever the time of day."""
    runner.sql("UPDATE sources SET next_run_at = clock_timestamp() + interval '1 h'")


def due(runner: SourceRunner) -> None:
    """What holds it only until before its next slot holds nothing."""
    runner.sql("UPDATE sources SET next_run_at = clock_timestamp()")


def test_breaker_open(far: SourceRunner) -> None:
    limiter = HostLimiter(RedisHostStates(), BreakerPolicy(2, 60), "test")
    for _ in range(2):
        limiter.failed("far.test", "it answered 500")
    resting(far)
    assert why(far, "far")["reasons"] == []
    due(far)
    found = first(far, "far")
    assert found["code"] == Cause.BREAKER_OPEN
    assert "it answered 500" in found["message"]
    assert "/breakers/far.test/reset" in found["action"]
    RedisHostStates().reset("far.test")
    resting(far)
    assert why(far, "far")["reasons"] == []


def test_the_host_asked_to_wait(far: SourceRunner) -> None:
    HostLimiter(RedisHostStates(), BreakerPolicy(2, 60), "test").pause("far.test", 600, "its rate limit is used up")
    resting(far)
    assert why(far, "far")["reasons"] == []
    due(far)
    assert first(far, "far")["code"] == Cause.SERVER_ASKED_TO_WAIT


def test_over_budget(far: SourceRunner) -> None:
    limiter = HostLimiter(RedisHostStates(), BreakerPolicy(2, 60), "test")
    limiter.admit("far.test", 300.0, 10.0)
    resting(far)
    assert why(far, "far")["reasons"] == []
    due(far)
    found = first(far, "far")
    assert found["code"] == Cause.OVER_BUDGET
    assert "every 300 s" in found["message"]


def test_slot_missed_only_when_nothing_else_holds(well: SourceRunner) -> None:
    well.sql("UPDATE sources SET next_run_at = clock_timestamp() - interval '5 h'")
    well.database.transact(claim_slots)
    well.sql("UPDATE etl_runs SET status = 'success', stage = 'done' WHERE status = 'queued'")
    found = first(well)
    assert found["code"] == Cause.SLOT_MISSED
    assert "slots passed" in found["message"]
    well.sql("UPDATE sources SET paused_until = clock_timestamp() + interval '1 h'")
    assert first(well)["code"] == Cause.DISABLED_OR_PAUSED


def test_last_run_failed_is_on_time(well: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/x", Response(status=404))
    well.declare({"name": "lost", "type": "api", "request": {"url": fake_server.url + "/x"}, "schedule": EVERY_HOUR})
    well.run("lost")
    found = why(well, "lost")
    assert found["on_time"] is True
    assert [reason["code"] for reason in found["reasons"]] == [Cause.LAST_RUN_FAILED]


def test_the_shell_says_the_same(
    well: SourceRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("config.settings.load_connected", lambda: well.settings)
    assert commands.main(["why", "shop"]) == 0
    assert capsys.readouterr().out == "shop is on time and well\n"
    well.sql("UPDATE sources SET paused_until = clock_timestamp() + interval '1 h'")
    assert commands.main(["why", "shop"]) == 0
    assert capsys.readouterr().out.startswith("disabled_or_paused: the source is paused (until ")
    assert commands.main(["why", "nowhere"]) == 1
