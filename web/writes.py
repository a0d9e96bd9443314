"""Writes over the API: each is one transaction, with its record and the answer to be repeated in it.

A view that writes works in the transaction of its request (`transaction`), so that either all of it happened or
nothing: what it does, the line in the record of writes, and the answer kept for its `Idempotency-Key`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from flask import Response, g, make_response, request

from db.queries.answers import Answered, Asked, keep_answer, take_key
from db.queries.audit import record_write
from etl.errors import ETLError
from web.callers import caller
from web.errors import InvalidRequestError, answer_of, status_of
from web.extensions import service

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

HEADER = "Idempotency-Key"
LONGEST_KEY = 255
REPLAYED = "Idempotency-Replayed"
_KEPT_HEADERS = ("Content-Type", "Location", "ETag")


@dataclass
class Write:
    """A write that goes on: its transaction, and what is said of it on record and done after it."""

    connection: Connection
    target: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    is_recorded: bool = True
    # What the answer would show again to whoever repeats the request.
    kept_answer: Response | None = None
    _after: list[Callable[[], Any]] = field(default_factory=list)

    def then(self, action: Callable[..., Any], *args: Any) -> None:
        """Do something once all is committed."""
        self._after.append(lambda: action(*args))

    def forget(self) -> None:
        """What was done of it is rolled back."""
        self._after.clear()
        self.kept_answer = None

    def finish(self) -> None:
        """It is committed."""
        for action in self._after:
            action()


def current() -> Write:
    """The write that this request makes."""
    return cast("Write", g.write)


def in_one_transaction(view: Callable[..., Any], action: str, most_bytes: int | None = None) -> Callable[..., Response]:
    """A view as a write, put on record as `action`; `most_bytes` is how long its body may be, if that is unusual."""

    @wraps(view)
    def write(*args: Any, **kwargs: Any) -> Response:
        if most_bytes is not None:
            request.max_content_length = most_bytes
        asked = _asked()

        def attempt(connection: Connection) -> Response:
            g.write = Write(connection)
            if asked is None:
                return _recorded(view, action, args, kwargs)
            earlier = take_key(connection, asked)
            if earlier is not None:
                return _repeated(earlier)
            answer = _judged(view, action, args, kwargs)
            keep_answer(connection, asked, _kept(g.write.kept_answer or answer))
            return answer

        answer = service().database.transact(attempt)
        current().finish()
        return answer

    return write


def _recorded(view: Callable[..., Any], action: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
    answer = make_response(view(*args, **kwargs))
    done = current()
    if done.is_recorded:
        named = next(map(str, (request.view_args or {}).values()), None)
        record_write(done.connection, caller().name, action, done.target or named, done.detail)
    return answer


def _judged(view: Callable[..., Any], action: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
    """The answer, also where it is a refusal: that stands too. What may go well later raises."""
    try:
        with current().connection.begin_nested():
            return _recorded(view, action, args, kwargs)
    except ETLError as error:
        status = status_of(error)
        if status is None or status >= 500 or status == 429:
            raise
        current().forget()
        return answer_of(error)


def _asked() -> Asked | None:
    """The request, if it is one that may come again."""
    key = request.headers.get(HEADER)
    if key is None or request.method != "POST":
        return None
    if not 1 <= len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise InvalidRequestError("header", HEADER, f"expected 1 to {LONGEST_KEY} printable characters of ASCII")
    said = f"{request.method} {request.full_path} {request.mimetype}\n".encode() + request.get_data(cache=True)
    return Asked(caller().mark, key, hashlib.sha256(said).digest())


def _kept(answer: Response) -> Answered:
    headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
    return Answered(answer.status_code, headers, answer.get_data())


def _repeated(earlier: Answered) -> Response:
    return Response(earlier.body, earlier.status, {**earlier.headers, REPLAYED: "true"})
