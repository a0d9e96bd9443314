"""The HTTP server under clients that are slow, and under those that mean harm."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from waitress import wasyncore

from testkit.service import wait_until
from web import server as module
from web.server import Server

GET = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
HALF_HEAD = b"GET /small HTTP/1.1\r\nHost: a\r\nX-A: "
HALF_BODY = b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{"
LARGE = 8 * 1024 * 1024


class Application:
    """Answers, large or small, at once, in pieces, or when it is let."""

    def __init__(self) -> None:
        self.let = Event()
        self.asked = self.pieces = 0
        self.ended = Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.asked += 1
        path = environ["PATH_INFO"]
        if path == "/wait":
            self.let.wait(30)
        if path == "/stream":
            start_response("200 OK", [])
            return self.stream()
        body = b"x" * LARGE if path == "/large" else json.dumps(list(environ)).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def stream(self) -> Iterator[bytes]:
        try:
            while self.pieces < 1000:
                self.pieces += 1
                yield b"y" * 100_000
        finally:
            self.ended.set()


class Running:
    """A server of two threads in this process."""

    def __init__(self) -> None:
        self.application = Application()
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.sockets: dict[int, Any] = {}
        self.server = Server(listener, self.application, self.sockets, 2)
        self.clients: list[socket.socket] = []
        self.ended = Event()
        self.thread = Thread(target=self._turn)
        self.thread.start()

    def _turn(self) -> None:
        while not self.ended.is_set():
            wasyncore.poll2(0.05, self.sockets)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.application.let.set()
        self.ended.set()
        self.thread.join()
        for dispatcher in (self.server.probes, self.server.task_dispatcher):
            dispatcher.shutdown()
        wasyncore.close_all(self.sockets)

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(self.address, timeout=20)
        self.clients.append(connection)
        connection.sendall(sent)
        return connection

    def ask(self, sent: bytes = GET) -> bytes:
        """All that comes until the server ends the connection, or has answered once."""
        with self.connect(sent) as connection:
            return read(connection)

    def connections(self) -> int:
        return len(self.server.active_channels)

    def held(self) -> int:
        return sum(channel.held for channel in list(self.server.active_channels.values()))


def read(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65_536):
        found += piece
        head, _, body = found.partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if body and lengths and len(body) >= lengths[0]:
            break
    return found


@contextmanager
def dripping(connection: socket.socket) -> Iterator[None]:
    """A byte every now and then, as long as the other side listens."""
    ended = Event()

    def drip() -> None:
        try:
            while not ended.wait(0.1):
                connection.send(b"a")
        except OSError:
            pass

    thread = Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in ("HEAD_SECONDS", "REQUEST_SECONDS", "IDLE_SECONDS", "ANSWER_SECONDS", "STOPPING_SECONDS"):
        monkeypatch.setattr(module, name, 1)
    made = Running()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY])
def test_a_request_that_does_not_come_whole_is_given_up(running: Running, sent: bytes) -> None:
    with running.connect(sent) as connection:
        wait_until(lambda: running.connections() == 1)
        assert connection.recv(1) == b""
    assert running.connections() == 0


@pytest.mark.parametrize("sent", [HALF_HEAD, HALF_BODY])
def test_trickling_bytes_put_off_no_deadline(running: Running, sent: bytes) -> None:
    with running.connect(sent) as connection, dripping(connection):
        wait_until(lambda: running.connections() == 1)
        wait_until(lambda: running.connections() == 0, 10)


def test_an_answer_that_is_not_taken_is_given_up_and_holds_no_thread(running: Running) -> None:
    for _ in range(5):
        running.connect(GET.replace(b"small", b"large"))
    wait_until(lambda: running.connections() == 5)
    assert running.ask().startswith(b"HTTP/1.1 200")
    wait_until(lambda: running.connections() == 0, 10)


def test_an_answer_that_is_taken_slowly_but_steadily_is_whole(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 2)
    found = 0
    with running.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(GET.replace(b"small", b"large"))
        while found < LARGE:
            piece = connection.recv(500_000)
            assert piece
            found += len(piece)
            time.sleep(0.01)


def test_answers_that_wait_are_held_within_a_limit(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 60)
    monkeypatch.setattr(module, "HELD_BYTES", 3 * LARGE)
    for _ in range(9):
        running.connect(GET.replace(b"small", b"large"))
    wait_until(lambda: running.application.asked == 9)
    # How many connections that leaves depends on how much of each answer the kernel took.
    wait_until(lambda: running.connections() < 9 and running.held() <= 3 * LARGE, 20)
    assert running.ask().startswith(b"HTTP/1.1 200")


def test_answers_taken_in_at_the_same_moment_are_cut_afterwards(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 60)
    for _ in range(3):
        running.connect(GET.replace(b"small", b"large"))
    wait_until(lambda: running.application.asked == 3 and running.held() > LARGE)
    # As if each of the threads had looked before the others put down their answers.
    monkeypatch.setattr(module, "HELD_BYTES", LARGE)
    wait_until(lambda: running.held() <= LARGE)


def test_bodies_count_as_held(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 60)
    monkeypatch.setattr(module, "HELD_BYTES", 250_000)
    for _ in range(8):
        running.connect(HALF_BODY + b" " * 100_000)
    wait_until(lambda: running.connections() <= 2)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY, GET.replace(b"small", b"large")])
def test_there_is_room_for_one_more_caller(running: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 5)
    for name in ("HEAD_SECONDS", "REQUEST_SECONDS", "IDLE_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(module, name, 60)
    for _ in range(10):
        running.connect(sent)
    assert running.ask().startswith(b"HTTP/1.1 200")
    assert running.connections() <= 5


def test_probes_are_answered_while_every_thread_is_held(running: Running) -> None:
    held = [running.connect(GET.replace(b"small", b"wait")) for _ in range(6)]
    wait_until(lambda: running.connections() == 6)
    assert running.ask(GET.replace(b"small", b"health/ready")).startswith(b"HTTP/1.1 200")
    running.application.let.set()
    for connection in held:
        assert read(connection).startswith(b"HTTP/1.1 200")


def test_a_stream_waits_for_its_reader_and_ends_with_it(running: Running) -> None:
    with running.connect(GET.replace(b"small", b"stream")) as connection:
        assert connection.recv(1) == b"H"
        wait_until(running.application.ended.is_set, 20)
        assert running.application.pieces < 200
    assert running.ask().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n1234",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n" + GET,
        b"GET / HTTP/1.1\r\nX: " + b"a" * module.MAX_HEAD + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_refused(running: Running, sent: bytes) -> None:
    answer = running.ask(sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in {400, 413, 431, 501}
    assert b"application/problem+json" in head
    assert b"Connection: close" in head
    assert json.loads(body)["status"] == status


def test_a_body_in_chunks_is_read(running: Running) -> None:
    sent = b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert running.ask(sent).startswith(b"HTTP/1.1 200")


def test_headers_are_data_and_nothing_else(running: Running) -> None:
    lines = b"SCRIPT_NAME: /x\r\nScript-Name: /x\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\r\n"
    answer = running.ask(GET[:-2] + lines)
    assert answer.startswith(b"HTTP/1.1 200")
    # The application sees that the call was forwarded; it is the socket that says by whom.
    assert b'"HTTP_X_FORWARDED_FOR"' in answer


def test_a_server_that_stops_finishes_what_was_asked(running: Running) -> None:
    with running.connect(GET.replace(b"small", b"wait")) as asked, running.connect(HALF_HEAD) as half:
        wait_until(lambda: running.connections() == 2)
        running.server.trigger.pull_trigger(running.server.stop)
        wait_until(lambda: running.server.stopping)
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        running.application.let.set()
        answer = read(asked)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
        assert asked.recv(1) == b""
        running.server.maintenance(time.time() + 5)
        assert half.recv(1) == b""
