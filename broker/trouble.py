"""What is too full to be written to, as the other side knows it.

A database that cannot write cannot note that it cannot: whoever runs into it says so in Redis, for a minute. What Redis
itself lacks is read from what it tells of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from broker.messaging import BROKER_ERRORS

if TYPE_CHECKING:
    from celery import Celery

KEY = "kasparro:database-trouble"
KEPT_SECONDS = 60
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
        noted = connection.default_channel.client.get(KEY)
    return noted.decode(errors="replace") if isinstance(noted, bytes) else noted


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
