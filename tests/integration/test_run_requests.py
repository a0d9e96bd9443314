"""Runs that are asked for, over HTTP and from a shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
import redis
from flask.testing import FlaskClient

from broker.messaging import make_producer
from db.queries import sweep
from db.queries.run_requests import request_runs
from etl.runs.messages import EXTRACT_QUEUE, ExtractMessage
from etl.runs.outcome import Trigger
from etl.runs.run_requests import Refusal, Requested, RequestStatus
from testkit.runner import SourceRunner
from testkit.service import Servers
from web.app import create_app
from worker import adhoc
from worker.sweeper import Sweeper

RECORDED = "SELECT trigger, status, source_type, error_code, error_message FROM etl_runs WHERE run_id = :id"
PAUSE = "UPDATE sources SET paused_until = now() + interval '1 h'"
SET_ASIDE = "UPDATE sources SET not_before = '2100-01-01Z', not_before_reason = 'set_aside'"
ASIDE_MESSAGE = (
    "worker processes died of the source 'shop'; it is set aside until 2100-01-01T00:00:00Z,"
    " or `python -m worker resume shop`"
)


def csv(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": "csv", "file": "x.csv", **more}


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


def requested(runner: SourceRunner, names: list[str] | None, run_id: UUID | None = None) -> Requested:
    answer = runner.database.transact(request_runs, names, Trigger.API, run_id)
    assert isinstance(answer, Requested)
    return answer


def test_each_source_gets_a_run_or_keeps_the_one_it_has(runner: SourceRunner) -> None:
    runner.declare(csv("a"), csv("b"))
    first = requested(runner, ["a"])
    assert first.messages == [ExtractMessage(run_id) for run_id in first.queued]
    both = requested(runner, None)
    assert [(run.source.name, run.status) for run in both.runs] == [
        ("a", RequestStatus.ALREADY_ACTIVE),
        ("b", RequestStatus.QUEUED),
    ]
    assert both.runs[0].run_id == first.queued[0]
    assert both.messages == [ExtractMessage(both.queued[0])]


def test_the_id_of_the_run_may_be_given(runner: SourceRunner) -> None:
    runner.declare(csv("a"))
    run_id = uuid4()
    assert requested(runner, ["a"], run_id).queued == [run_id]


def test_nothing_is_queued_if_one_may_not_run(runner: SourceRunner) -> None:
    runner.declare(csv("a"), csv("b", enabled=False))
    assert isinstance(runner.database.transact(request_runs, ["a", "b"], Trigger.API), Refusal)
    assert runner.sql("SELECT count(*) FROM etl_runs") == [0]


def test_a_request_that_queues_nothing_sends_nothing(runner: SourceRunner) -> None:
    """What was marked as sent and never is would wait until a sweeper missed it."""
    runner.declare(csv("a"), {"name": "far", "type": "api", "request": {"url": "http://far.test/a"}})
    requested(runner, ["a", "far"])
    runner.sql("UPDATE etl_runs SET dispatched_at = NULL WHERE slow")
    assert requested(runner, ["a"]).messages == []
    assert runner.sql("SELECT dispatched_at FROM etl_runs WHERE slow") == [None]


@pytest.mark.parametrize(
    ("change", "code", "shown", "recorded"),
    [
        (
            "UPDATE sources SET enabled = false",
            "source_inactive",
            "the source 'shop' is disabled",
            "the source is disabled",
        ),
        (PAUSE, "source_inactive", "the source 'shop' is paused", "the source is paused"),
        (SET_ASIDE, "set_aside", ASIDE_MESSAGE, ASIDE_MESSAGE),
    ],
)
def test_who_may_not_run_is_refused_in_the_words_of_each(
    runner: SourceRunner, client: FlaskClient, change: str, code: str, shown: str, recorded: str
) -> None:
    runner.declare(csv("shop"))
    runner.sql(change)
    response = client.post("/runs", json={"source": "shop"})
    problem = response.get_json(force=True)
    assert (response.status_code, problem["type"], problem["detail"]) == (409, f"urn:kasparro:problem:{code}", shown)
    assert (problem["source"], "not_before" in problem) == ("shop", code == "set_aside")
    run_id = uuid4()
    assert adhoc.queue(runner.database, run_id, "shop") == []
    assert runner.sql(RECORDED, id=run_id) == [("cli", "skipped", "csv", code, recorded)]


def test_sources_that_are_set_aside_are_counted_when_all_are_asked(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(csv("shop"), csv("other"))
    runner.sql(SET_ASIDE + " WHERE name = 'shop'")
    body = client.post("/runs", json={}).json
    assert body
    assert ([run["source_name"] for run in body["runs"]], body["set_aside_total"]) == (["other"], 1)


def test_a_shell_queues_a_run_or_learns_why_not(runner: SourceRunner) -> None:
    runner.declare(csv("shop"))
    first, second, unknown = uuid4(), uuid4(), uuid4()
    assert adhoc.queue(runner.database, first, "shop") == [ExtractMessage(first)]
    assert adhoc.queue(runner.database, first, "shop") == [], "the task came twice"
    assert adhoc.queue(runner.database, second, "shop") == []
    assert adhoc.queue(runner.database, unknown, "nope") == []
    assert runner.sql(RECORDED, id=first) == [("cli", "queued", "csv", None, None)]
    active = ("cli", "skipped", "csv", "already_active", "the source had an active run")
    assert runner.sql(RECORDED, id=second) == [active]
    missing = ("cli", "failed", None, "unknown_source", "there is no source named 'nope'")
    assert runner.sql(RECORDED, id=unknown) == [missing]


def many(runner: SourceRunner, count: int) -> None:
    runner.declare(*(csv(f"s{n:04}") for n in range(count)))


def test_a_hundred_are_sent_for_and_the_sweeper_sends_the_others(runner: SourceRunner) -> None:
    many(runner, 130)
    answer = requested(runner, None)
    sent = {message.run_id for message in answer.messages}
    assert (len(answer.queued), len(sent)) == (130, 100)
    others = runner.database.transact(sweep.due_runs, queue_empty=False)
    assert sent | {message.run_id for message in others} == set(answer.queued)
    assert len(others) == 30
    assert runner.sql("SELECT event, detail, count(*) FROM etl_run_events GROUP BY 1, 2") == [
        ("queued", {"trigger": "api"}, 130)
    ]


def test_of_many_some_stand_in_the_queue(runner: SourceRunner, servers: Servers) -> None:
    broker = redis.Redis.from_url(servers.valkey.url)
    broker.delete(EXTRACT_QUEUE)
    many(runner, 550)
    requested(runner, None)
    sweeper = Sweeper(make_producer(), runner.settings, "worker", "w", 2)
    lengths = []
    for taken in (0, 0, 150, 0):
        broker.ltrim(EXTRACT_QUEUE, taken, -1)
        sweeper.publish_due(runner.database)
        lengths.append((broker.llen(EXTRACT_QUEUE), sweeper.has_more))
    broker.delete(EXTRACT_QUEUE)
    assert lengths == [(200, True), (200, True), (250, True), (250, True)]
    sweeper.publish_due(runner.database)
    assert (broker.llen(EXTRACT_QUEUE), sweeper.has_more) == (50, False)
    broker.delete(EXTRACT_QUEUE)


def test_the_answer_is_bounded_and_says_how_many_there_are(runner: SourceRunner, client: FlaskClient) -> None:
    many(runner, 1005)
    requested(runner, ["s0003", "s1004"])
    answer = client.post("/runs", json={})
    body = answer.get_json()
    assert (len(body["runs"]), body["queued_total"], body["already_active_total"]) == (1000, 1003, 2)
    assert body["runs"][3]["status"] == "already_active"
    assert answer.headers["Location"].endswith(body["runs"][0]["run_id"])
    again = client.post("/runs", json={})
    assert again.status_code == 409
    assert UUID(json.loads(again.data)["active_run_id"])


def test_two_who_ask_for_all_at_once_do_not_disturb_each_other(runner: SourceRunner) -> None:
    many(runner, 300)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: requested(runner, None), range(4)))
    assert sorted(len(answer.queued) for answer in answers) == [0, 0, 0, 300]
    ids = {run.run_id for answer in answers for run in answer.runs}
    assert len(ids) == 300


def test_some_runs_are_shown_by_their_ids(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(csv("a"), csv("b"), csv("c"))
    queued = [str(run_id) for run_id in requested(runner, None).queued]
    asked = ",".join([*queued[:2], str(uuid4())])
    body = client.get(f"/runs?ids={asked}").get_json()
    assert ({run["run_id"] for run in body["runs"]}, body["next_cursor"]) == (set(queued[:2]), None)
    for wrong in ("x", "", f"{asked}&status=queued", ",".join(str(uuid4()) for _ in range(101))):
        assert client.get(f"/runs?ids={wrong}").status_code == 422
