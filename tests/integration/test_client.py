"""What the stack's commands say to whoever listens on the service's port."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import Settings
from stack import account, ports
from stack.client import Client, ServiceError
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner

KEY = "the admin key of the stack"


@pytest.fixture
def current(runner: SourceRunner) -> Settings:
    runner.settings.state_dir.mkdir()
    runner.settings.key_file.write_text(KEY + "\n")
    return runner.settings


def at(current: Settings, server: FakeServer) -> Client:
    return Client(replace(current, web_port=server.port))


def test_the_key_is_not_sent_where_none_is_needed(current: Settings, fake_server: FakeServer) -> None:
    fake_server.on("/runs", lambda _: as_json({"runs": [], "queued_total": 0, "already_active_total": 0}))
    at(current, fake_server).queue(None)
    (asked,) = fake_server.asked
    assert "authorization" not in asked.headers


def test_the_key_is_sent_to_a_server_of_ours_that_asks_for_it(current: Settings, fake_server: FakeServer) -> None:
    def answer(asked: Request) -> Response:
        if asked.headers.get("authorization") == f"Bearer {KEY}":
            return as_json({"runs": [], "queued_total": 0, "already_active_total": 0})
        return Response(status=401, body=b"{}")

    fake_server.on("/runs", answer)
    client = at(current, fake_server)
    client.queue(None)
    client.queue(None)
    assert [("authorization" in asked.headers) for asked in fake_server.asked] == [False, True, True]


@contextmanager
def strange_server(port: int) -> Iterator[int]:
    """A server of another account that answers 401 and writes down what it is sent; the end of a pipe to read it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            account.demote()
            with socket.create_server(("127.0.0.1", port)) as server:
                os.write(writing, b"ready\n")
                while True:
                    connection, _ = server.accept()
                    os.write(writing, connection.recv(65_536))
                    connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                    connection.close()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 6) == b"ready\n"
        yield reading
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reading)


@pytest.mark.skipif(not account.is_root(), reason="only root can be another account")
def test_no_key_is_sent_to_a_server_of_somebody_else(current: Settings, tmp_path: Path) -> None:
    port = ports.free_port()
    with strange_server(port) as received:
        with pytest.raises(ServiceError, match="belongs to another user"):
            Client(replace(current, web_port=port)).queue(None)
        assert b"uthorization" not in os.read(received, 65_536)


def test_who_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert ports.listeners(server.getsockname()[1]) == {os.geteuid()}
    assert ports.listeners(1) == set()


# --- following runs


def test_runs_are_followed_by_one_bounded_question_at_a_time(current: Settings, fake_server: FakeServer) -> None:
    ended: set[str] = set()
    asked: list[int] = []

    def answer(request: Request) -> Response:
        ids = request.query["ids"].split(",")
        asked.append(len(ids))
        shown = [{"run_id": one, "status": "success" if one in ended else "running"} for one in ids]
        ended.update(ids[::2])
        return as_json({"runs": shown, "next_cursor": None})

    fake_server.on("/runs", answer)
    wanted = [f"run-{n}" for n in range(250)]
    reached: list[int] = []
    runs = at(current, fake_server).follow(wanted, 60, lambda _, count: reached.append(count))
    assert [run["run_id"] for run in runs] == wanted
    assert {run["status"] for run in runs} == {"success"}
    assert max(asked) == 100
    assert reached == sorted(reached)
    assert reached[-1] == 250


def test_those_that_go_on_when_time_is_up_are_as_they_were_seen(current: Settings, fake_server: FakeServer) -> None:
    fake_server.on(
        "/runs",
        lambda request: as_json(
            {"runs": [{"run_id": one, "status": "queued"} for one in request.query["ids"].split(",")]}
        ),
    )
    runs = at(current, fake_server).follow([str(n) for n in range(130)], 0.0, lambda *_: None)
    assert len(runs) == 100
