"""Clients that are slow, each in its own way, and what a probe sees of the service meanwhile."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import select
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

KEY = "bench-key-for-reading"  # pragma: allowlist secret
PLAIN = "/data?page_size=50"
_HEAD = f"Host: 127.0.0.1\r\nX-API-Key: {KEY}\r\n"
_POST = f"POST /runs HTTP/1.1\r\n{_HEAD}Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{{"
# What a client of each kind sends at first, and what every second; none of them ever reads.
KINDS = {
    "half heads": ("GET /data HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ", ""),
    "dripping heads": ("GET /data HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ", "a"),
    "half bodies": (_POST, ""),
    "dripping bodies": (_POST, " "),
    "no reading": (f"GET /data?source_name=large&page_size=50 HTTP/1.1\r\n{_HEAD}\r\n", ""),
}


def hold(port: int, kind: str, count: int) -> None:
    """Keep so many slow clients until ended; one that is cut comes again at the next second."""
    first, drip = (text.encode() for text in KINDS[kind])
    poller, held = select.poll(), dict[int, socket.socket]()
    while True:
        for connection in [_slow(port, first) for _ in range(count - len(held))]:
            held[connection.fileno()] = connection
            poller.register(connection, select.POLLRDHUP)
        time.sleep(1)
        for number, _ in poller.poll(0):
            poller.unregister(number)
            held.pop(number).close()
        for connection in held.values():
            with contextlib.suppress(OSError):
                connection.send(drip)


def _slow(port: int, first: bytes) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    select.select([], [connection], [], 1)
    with contextlib.suppress(OSError):
        connection.send(first)
    return connection


@contextlib.contextmanager
def slow_clients(port: int, kind: str, count: int) -> Iterator[None]:
    """So many slow clients of a kind, in a process of their own."""
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(port, kind, count), daemon=True)
    process.start()
    try:
        time.sleep(3)
        yield
    finally:
        process.terminate()
        process.join(10)


@dataclass(frozen=True)
class Answers:
    """Seconds of each answer in time, and how many did not come."""

    seconds: list[float]
    failed: int

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) > 1 else float("inf")

    def __str__(self) -> str:
        if len(self.seconds) < 2:
            return f"none of {len(self.seconds) + self.failed}"
        middle = statistics.median(self.seconds)
        lost = f", {self.failed} without an answer" if self.failed else ""
        return f"p50 {middle * 1e3:.1f} ms, p99 {self.p99 * 1e3:.1f} ms of {len(self.seconds)}{lost}"

    def bound(self) -> float:
        """The p99 that is allowed where these are the answers of an idle server, in seconds."""
        return max(0.1, 5 * self.p99)


def probe(port: int, seconds: float, path: str = "/health/ready") -> Answers:
    """Ask again and again, with a connection for each, as a load balancer does."""
    found, failed, ends = [], 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.monotonic()
        if ask(port, path, 5) == 200:
            found.append(time.monotonic() - started)
        else:
            failed += 1
        time.sleep(0.03)
    return Answers(found, failed)


def ask(port: int, path: str, seconds: float) -> int:
    """The status of one whole answer; 0 when it did not come, -1 when nobody listened."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\n{_HEAD}Connection: close\r\n\r\n".encode())
            while piece := connection.recv(262_144):
                answer += piece
    except ConnectionRefusedError:
        return -1
    except OSError:
        return 0
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return int(head[9:12]) if length and len(body) == int(length[1]) else 0
