"""Calls of webhooks and heartbeats: only to hosts that are public or allowed, and within a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from etl.errors import FetchError
from etl.http.address import host_of
from etl.http.failure import translated
from etl.http.transport import ConnectionLimits, make_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# For all of a message, from the name of the host to the status: seconds.
SECONDS = 15.0


def payload(event: str, now: datetime, facts: dict[str, Any]) -> bytes:
    """The body of a message."""
    return msgspec.json.encode({"type": f"alert.{event}", "timestamp": now, "data": facts})


def call(url: str, private: Sequence[str], body: bytes | None = None, sent: dict[str, str] | None = None) -> None:
    """POST a body to an address, or GET it; only to hosts that are public or allowed, and within 15 s.

    Raises:
        ETLError: it cannot be reached, or did not answer with a 2xx. No message shows more of it than its host.
    """
    guard = ConnectionLimits(private)
    guard.set(SECONDS)
    session = make_session(guard)

    def work() -> None:
        method = "GET" if body is None else "POST"
        with session.request(method, url, data=body, headers=sent, timeout=SECONDS, stream=True) as answer:
            if not 200 <= answer.status_code < 300:
                raise FetchError(f"answered {answer.status_code}", status=answer.status_code)

    with session:
        translated(host_of(url), time.monotonic(), work)
