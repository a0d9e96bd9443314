"""The HTTP server: gunicorn keeps the processes, waitress reads requests and writes answers in one loop.

Threads only ever see whole requests and hand over whole answers, so a client that is slow costs a connection and a
bounded buffer, never a thread. Here is what waitress lacks: deadlines that trickling bytes do not put off, a limit to
what all connections hold together, room for a new caller when every connection is taken, and a thread that is kept for
the probes. All limits are those of one process.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask

from web import headers
from web.declaring import MOST_BYTES
from web.errors import problem_body
from web.schemas.problem import PROBLEM

if TYPE_CHECKING:
    import socket

# How long a client may take, in seconds: for the head of a request, for head and body, and to begin another.
HEAD_SECONDS = 10
REQUEST_SECONDS = 30
IDLE_SECONDS = 30
# Of an answer that waits for its client, so much must be taken in so many seconds.
ANSWER_BYTES = 65_536
ANSWER_SECONDS = 10
# What a client may still take when the server is asked to stop.
STOPPING_SECONDS = 2
CONNECTIONS = 250
# Beyond these waitress accepts nobody; it is reached only if threads have work for every connection.
MOST_CONNECTIONS = CONNECTIONS + 50
MAX_HEAD = 32_768
# What all connections may hold together of bodies and answers that are on their way.
HELD_BYTES = 64 * 1024 * 1024
# What is smaller is limited by the number of connections.
SMALL = 65_536
# An answer made in pieces waits for its client beyond this: the thread that makes it stands still.
STREAM_BYTES = 1024 * 1024
PROBES = "/health/"

log = structlog.get_logger(__name__)


class Request(HTTPRequestParser):
    """A request on its way in."""

    def __init__(self, adj: Adjustments) -> None:
        super().__init__(adj)
        self.started = time.time()

    def parse_header(self, head: bytes) -> None:
        """Read the head; one of which two servers could see different ends is refused."""
        super().parse_header(head)
        if "TRANSFER_ENCODING" in self.headers or (self.chunked and "CONTENT_LENGTH" in self.headers):
            raise ParsingError("Transfer-Encoding with Content-Length, or in HTTP/1.0")


class Task(WSGITask):
    """A request being answered by the application."""

    def build_response_header(self) -> bytes:
        """The head of the answer; a server that stops says that no more is answered on this connection."""
        # A client that asks for more before it has taken a large answer would keep this thread until it has.
        greedy = len(self.channel.requests) > 1 and (self.content_length or STREAM_BYTES) >= STREAM_BYTES
        if self.channel.server.stopping or greedy:
            self.set_close_on_finish()
        return bytes(super().build_response_header())


class Refusal(ErrorTask):
    """A request that never reached the application, answered with a problem document."""

    def execute(self) -> None:
        """Say what was wrong with it."""
        error = self.request.error
        body = problem_body(error.code, error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", PROBLEM), *headers.COMMON.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """A connection. Its client is waited for while a request comes in, while an answer goes out, and in between."""

    parser_class = Request
    task_class = Task
    error_task_class = Refusal

    # Bytes of answers taken since, and since when.
    taken = 0
    moved = 0.0

    @property
    def waits(self) -> tuple[float, float] | None:
        """Since when its client is waited for, and for how many seconds at most; None while it waits for us."""
        request = self.request
        if self.total_outbufs_len:
            return self.moved, ANSWER_SECONDS
        if self.requests:
            return None
        reading = STOPPING_SECONDS if self.server.stopping else REQUEST_SECONDS
        if request is None:
            return self.last_activity, min(reading, IDLE_SECONDS)
        return max(request.started, self.moved), reading if request.headers_finished else min(reading, HEAD_SECONDS)

    @property
    def held(self) -> int:
        """Bytes of a body or of answers that are kept for its client."""
        requests = [*self.requests, *([self.request] if self.request else [])]
        return int(self.total_outbufs_len) + sum(int(request.body_bytes_received) for request in requests)

    def received(self, data: bytes) -> bool:
        """Take in what came."""
        if self.request is not None and self.request.headers_finished:
            self.server.make_room(len(data), self)
        return bool(super().received(data))

    def write_soon(self, data: Any) -> int:
        """Take over a piece of an answer."""
        if len(data) > SMALL:
            self.server.make_room(len(data), self)
        if not self.total_outbufs_len:
            self.taken, self.moved = 0, time.time()
        return int(super().write_soon(data))

    def send(self, data: bytes, do_close: bool = True) -> int:  # noqa: FBT001, FBT002 -- waitress calls it so
        """Send what the client takes now."""
        sent = int(super().send(data, do_close))
        self.taken += sent
        if self.taken >= ANSWER_BYTES:
            self.taken, self.moved = 0, time.time()
        return sent


class Server(TcpWSGIServer):
    """A listening address and its connections."""

    channel_class = Channel
    stopping = False

    def __init__(self, listener: socket.socket, application: Any, sockets: dict[int, Any], threads: int) -> None:
        self.probes = _dispatcher(1)
        # Why connections were closed lately, and how many.
        self._cut = Counter[str]()
        host = listener.getsockname()[0]
        where = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(
            application,
            sockets,
            _sock=listener,
            dispatcher=_dispatcher(threads),
            adj=_adjustments(host),
            sockinfo=where,
            bind_socket=False,
        )

    def add_task(self, channel: Channel) -> None:
        """Let a thread answer; whatever the others do, one is there for the probes."""
        path = getattr(channel.requests[0], "path", "")
        (self.probes if path.startswith(PROBES) else self.task_dispatcher).add_task(channel)

    def handle_accept(self) -> None:
        """Take in a caller, in place of the one waited for longest if need be."""
        if len(self.active_channels) >= CONNECTIONS:
            self._close("connections", self._waiting()[:1])
        super().handle_accept()

    def make_room(self, size: int, needed_by: Channel | None) -> None:
        """Keep what is held within its limit: who is waited for longest loses the connection."""
        excess = sum(channel.held for channel in list(self.active_channels.values())) + size - HELD_BYTES
        if excess <= 0:
            return
        for channel in self._waiting():
            if excess > 0 and channel.held and channel is not needed_by:
                excess -= channel.held
                self._close("memory", [channel])
        if excess > 0 and needed_by is not None and needed_by.request is not None:
            self._close("memory", [needed_by])

    def maintenance(self, now: float) -> None:
        """End the connections whose clients took too long, or were gone before they asked."""
        late = [channel for channel in self._waiting() if now > sum(channel.waits or (now, 1))]
        self._close("time", late)
        # Threads that ask for room at the same moment do not see each other's answers.
        self.make_room(0, None)
        if self._cut:
            log.warning("slow_clients_closed", **self._cut)
            self._cut = Counter()

    def stop(self) -> None:
        """Take in nobody but those who have come already."""
        self.stopping = True
        queued = select.poll()
        queued.register(self.socket, select.POLLIN)
        while len(self.active_channels) < CONNECTIONS and queued.poll(0):
            before = len(self.active_channels)
            self.handle_accept()
            if len(self.active_channels) == before:
                break
        # Waitress's own would close the trigger as well, by which threads say that an answer is there.
        wasyncore.dispatcher.close(self)

    def _waiting(self) -> list[Channel]:
        """The connections whose clients are waited for, the longest first."""
        since = [(channel.waits, channel) for channel in list(self.active_channels.values())]
        return [channel for _, channel in sorted((pair for pair in since if pair[0]), key=lambda pair: pair[0][0])]

    def _close(self, reason: str, channels: list[Channel]) -> None:
        for channel in channels:
            # The loop does it: this may be another thread, and a client that takes nothing gives no event.
            self.trigger.pull_trigger(channel.handle_close)
        # To close an idle connection cuts nothing off, and is not worth a warning.
        self._cut.update(reason for channel in channels if channel.held or channel.request)


class BufferingWorker(Worker):
    """A process of gunicorn's that serves by waitress."""

    def run(self) -> None:
        """Serve until told to stop, then finish what was asked."""
        # waitress warns of every request that waits for a thread. That is normal here.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._sockets: dict[int, Any] = {}
        servers = [Server(one.sock, self.wsgi, self._sockets, self.cfg.threads) for one in self.sockets]
        while self.alive and self.ppid == os.getppid():
            self._turn()
        for server in servers:
            server.stop()
        ends = time.monotonic() + self.cfg.graceful_timeout
        while any(server.active_channels for server in servers) and time.monotonic() < ends:
            for server in servers:
                server.maintenance(time.time())
            self._turn()

    def _turn(self) -> None:
        self.notify()
        wasyncore.poll2(1, self._sockets)


def _dispatcher(threads: int) -> ThreadedTaskDispatcher:
    made = ThreadedTaskDispatcher()
    made.set_thread_count(threads)
    return made


def _adjustments(host: str) -> Adjustments:
    return Adjustments(
        server_name=host,
        ident="kasparro",
        connection_limit=MOST_CONNECTIONS,
        cleanup_interval=1,
        max_request_header_size=MAX_HEAD,
        # The application refuses what is larger in its own words; this holds for bodies that do not say how large.
        max_request_body_size=MOST_BYTES + 65_536,
        inbuf_overflow=HELD_BYTES,
        outbuf_overflow=HELD_BYTES,
        outbuf_high_watermark=STREAM_BYTES,
        log_socket_errors=False,
        # Nobody is believed, but the application looks whether a call was forwarded.
        clear_untrusted_proxy_headers=False,
    )
