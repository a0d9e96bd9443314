"""Who tells of what cannot be written down, among all processes, as Redis has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from broker.messaging import BROKER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

# So long it is known after it was told last, and so long a process has its turn after it was seen last: seconds.
KNOWN_SECONDS, TURN_SECONDS = 600, 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Telling:
    """What is told of, by whichever process: its name, whether this process is to tell it, and whom it has reached."""

    name: str
    is_mine: bool
    reached: frozenset[str]


def claim_telling(app: Celery, what: str, name: str, process: str) -> Telling | None:
    """Say that this is to be told of, under a new name or the one it has; None when nobody knows.

    One process at a time tells it, another when that one has not been here for a minute.
    """
    named, reached, turn = _keys(what)

    def claim(redis: Any) -> Telling:
        redis.set(named, name, nx=True)
        redis.set(turn, process, nx=True, ex=TURN_SECONDS)
        is_mine = _text(redis.get(turn)) == process
        if is_mine:
            redis.expire(turn, TURN_SECONDS)
        for key in (named, reached):
            redis.expire(key, KNOWN_SECONDS)
        return Telling(_text(redis.get(named)) or name, is_mine, _texts(redis.smembers(reached)))

    told: Telling | None = _ask(app, what, claim)
    return told


def left_telling(app: Celery, what: str) -> tuple[bool, Telling | None]:
    """Whether something is told of that may be left, now or later, and if nobody goes on to tell of it, what."""
    named, reached, turn = _keys(what)

    def look(redis: Any) -> tuple[bool, Telling | None]:
        name = _text(redis.get(named))
        if name is None or redis.exists(turn):
            return name is not None, None
        return False, Telling(name, is_mine=False, reached=_texts(redis.smembers(reached)))

    return _ask(app, what, look) or (True, None)


def note_reached(app: Celery, what: str, whom: str) -> None:
    """It is told to this one."""
    _ask(app, what, lambda redis: (redis.sadd(_keys(what)[1], whom), redis.expire(_keys(what)[1], KNOWN_SECONDS)))


def forget_telling(app: Celery, what: str) -> None:
    """Nobody has told of what comes next."""
    _ask(app, what, lambda redis: redis.delete(*_keys(what)))


def _keys(what: str) -> tuple[str, str, str]:
    return f"kasparro:telling:{what}", f"kasparro:reached:{what}", f"kasparro:teller:{what}"


def _ask(app: Celery, what: str, ask: Callable[[Any], Any]) -> Any:
    try:
        with app.connection_for_write() as connection:
            return ask(connection.default_channel.client)
    except BROKER_ERRORS as error:
        log.warning("telling_not_noted", what=what, error=str(error)[:200])
        return None


def _texts(found: Any) -> frozenset[str]:
    return frozenset(_text(one) or "" for one in found)


def _text(found: Any) -> str | None:
    return found.decode(errors="replace") if isinstance(found, bytes) else found
