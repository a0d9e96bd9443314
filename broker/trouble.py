"""What is too full to be written to, as the other side knows it.

A database that cannot write cannot note that it cannot: whoever runs into it says so in Redis, for a minute. What Redis
itself lacks is read from what it tells of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from broker.messaging import BROKER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

KEY = "kasparro:database-trouble"
KEPT_SECONDS = 60
# So long something is known that nobody goes on to tell of, and a process may tell it that is not seen: seconds.
KNOWN_SECONDS, TURN_SECONDS = 600, 60
# Of its limit: there is room for messages, but not for long.
NEARLY_FULL = 0.95

log = structlog.get_logger(__name__)


def note_trouble(app: Celery, message: str) -> None:
    """The database could not write just now."""
    try:
        with app.connection_for_write() as connection:
            connection.default_channel.client.set(KEY, message[:300], ex=KEPT_SECONDS)
    except BROKER_ERRORS as error:
        log.warning("trouble_not_noted", trouble=message[:300], error=str(error)[:200])


def noted_trouble(app: Celery) -> str | None:
    """What kept the database from writing within the last minute.

    Raises:
        one of BROKER_ERRORS.
    """
    with app.connection_for_write() as connection:
        return _text(connection.default_channel.client.get(KEY))


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
    """What was told of and nobody goes on to tell of, if anything; and whether somebody may, later or now."""
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


def broker_trouble(app: Celery) -> str | None:
    """Why Redis takes no messages, or soon takes none, by its own word.

    Raises:
        one of BROKER_ERRORS.
    """
    with app.connection_for_write() as connection:
        found = connection.default_channel.client.info()
    limit, used = int(found.get("maxmemory", 0)), int(found.get("used_memory", 0))
    if found.get("aof_enabled") and found.get("aof_last_write_status", "ok") != "ok":
        return "its log cannot be written: is its disk full?"
    if found.get("rdb_last_bgsave_status", "ok") != "ok":
        return "its data cannot be saved: is its disk full?"
    if limit and used > NEARLY_FULL * limit:
        return f"its memory is used up: {used >> 20} of {limit >> 20} MiB"
    return None
