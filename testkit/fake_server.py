"""A server that plays the outside world: each path has a handler, and every request is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec


@dataclass
class Request:
    """A request as it came in."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Response:
    """What to answer. `raw` is called with the handler instead, for answers that break the rules."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: Callable[[BaseHTTPRequestHandler], None] | None = None


Handler = Callable[[Request], Response]


class FakeServer:
    """Start with `with`; add paths with `on`. With HTTP/1.0 a connection ends with its answer."""

    def __init__(self, version: str = "HTTP/1.0") -> None:
        self.asked: list[Request] = []
        self._handlers: dict[str, Handler] = {}
        outer = self

        class _Handler(BaseHTTPRequestHandler):
            protocol_version = version
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer._answer(self)

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, path: str, handler: Handler | Response | list[Response]) -> str:
        """Answer a path by a function, always the same, or one after the other (the last stays); its address."""
        if isinstance(handler, Response):
            answer = handler
            self._handlers[path] = lambda _: answer
        elif isinstance(handler, list):
            rest = list(handler)
            self._handlers[path] = lambda _: rest.pop(0) if len(rest) > 1 else rest[0]
        else:
            self._handlers[path] = handler
        return self.url + path

    def json(self, path: str, value: Any) -> str:
        """Answer a path with JSON."""
        return self.on(path, as_json(value))

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        asked = Request(parts.path, query, {name.lower(): value for name, value in handler.headers.items()}, body)
        self.asked.append(asked)
        handler_of = self._handlers.get(parts.path)
        answer = handler_of(asked) if handler_of else Response(b"not here", 404)
        try:
            if answer.raw:
                answer.raw(handler)
                return
            handler.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(answer.body)
        except (BrokenPipeError, ConnectionResetError):
            pass


def as_json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), headers={"Content-Type": "application/json"})
