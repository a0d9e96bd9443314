"""Events of a run, listed and as they happen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from testkit.runner import SourceRunner
from web import streams
from web.app import create_app

LIVE = {"Accept": "text/event-stream"}


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


def told(body: bytes) -> list[dict[str, Any]]:
    lines = body.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith('data: {"event_id')]


def test_events_are_listed_from_one_on(runner: SourceRunner, client: FlaskClient) -> None:
    run = runner.run("shop")
    path = f"/runs/{run['run_id']}/events"
    shown = client.get(path).get_json()
    assert (shown["status"], shown["events"][0]["event"], shown["events"][-1]["event"]) == (
        "success",
        "queued",
        "success",
    )
    second = shown["events"][0]["event_id"]
    assert client.get(f"{path}?after={second}").get_json()["events"] == shown["events"][1:]
    assert client.get(f"/runs/{uuid4()}/events").status_code == 404


def test_a_stream_of_a_run_that_is_over_ends_with_it(runner: SourceRunner, client: FlaskClient) -> None:
    run = runner.run("shop")
    path = f"/runs/{run['run_id']}/events"
    answer = client.get(path, headers=LIVE)
    assert answer.mimetype == "text/event-stream"
    assert answer.data.endswith(b"event: end\ndata: {}\n\n")
    listed = client.get(path).get_json()["events"]
    assert told(answer.data) == [{**event, "at": event["at"].replace("+00:00", "Z")} for event in listed]
    later = client.get(path, headers={**LIVE, "Last-Event-ID": str(listed[0]["event_id"])})
    assert [event["event_id"] for event in told(later.data)] == [event["event_id"] for event in listed[1:]]
    assert client.get(path, headers={**LIVE, "Last-Event-ID": "x"}).status_code == 422


def test_what_happens_meanwhile_comes(runner: SourceRunner, client: FlaskClient) -> None:
    run_id = runner.queue("shop")
    answer = client.get(f"/runs/{run_id}/events", headers=LIVE, buffered=False)
    parts = iter(answer.response)
    worker = Thread(target=runner.drain)
    worker.start()
    names = [event["event"] for event in told(b"".join(parts))]  # type: ignore[arg-type]
    worker.join()
    answer.close()
    assert names[0] == "queued"
    assert names[-1] == "success"


def test_only_so_many_stay_open_and_one_that_ends_makes_room(runner: SourceRunner, client: FlaskClient) -> None:
    run_id = runner.queue("shop")
    path = f"/runs/{run_id}/events"
    held = [client.get(path, headers=LIVE, buffered=False) for _ in range(streams.AT_ONCE)]
    refused = client.get(path, headers=LIVE)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert client.get(path).status_code == 200
    for answer in held:
        answer.close()
    runner.drain()
    assert client.get(path, headers=LIVE).status_code == 200


def test_after_a_while_it_ends(runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST", 0.1)
    monkeypatch.setattr(streams, "PAUSE", 0.05)
    run_id = runner.queue("shop")
    body = client.get(f"/runs/{run_id}/events", headers=LIVE).data
    assert [event["event"] for event in told(body)] == ["queued"]
    assert b"event: end" not in body
