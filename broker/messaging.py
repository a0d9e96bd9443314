"""The Celery app, and how messages go out: after the commit, once, within seconds, and never needed to arrive."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import structlog
from celery import Celery, chain, signature
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from etl.runs import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

    from etl.runs.messages import Message

BROKER_ERRORS = (OperationalError, KombuError, RedisError, OSError)
# How long a process that must answer someone waits for Redis: seconds.
SHORT_TIMEOUT = 1.5

M = TypeVar("M", bound=messages.Message)

log = structlog.get_logger(__name__)


def make_app() -> Celery:
    """The Celery app, configured by `celeryconfig.py`."""
    app = Celery("kasparro")
    app.config_from_object("celeryconfig")
    return app


def make_producer() -> Celery:
    """An app for a process that only sends, and must not be held up by a Redis that hangs."""
    app = make_app()
    options = {"socket_timeout": SHORT_TIMEOUT, "socket_connect_timeout": SHORT_TIMEOUT, "health_check_interval": 0}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **options}
    app.conf.broker_connection_timeout = SHORT_TIMEOUT
    return app


def publish(app: Celery, outgoing: Iterable[M]) -> list[M]:
    """Send messages; give up at the first that fails, because the sweeper sends what is missing.

    Returns:
        The messages that were not sent.
    """
    waiting = list(outgoing)
    try:
        while waiting:
            _send(app, waiting[0])
            waiting.pop(0)
    except BROKER_ERRORS as error:
        log.warning("publish_failed", error=str(error)[:200], unsent=len(waiting))
    return waiting


def client(app: Celery) -> Redis:
    """A client of the message broker's own Redis, on a connection that the caller keeps.

    Raises:
        one of BROKER_ERRORS.
    """
    return cast("Redis", app.connection_for_write().default_channel.client)


def queue_lengths(app: Celery) -> dict[str, int]:
    """How many messages wait in each queue.

    Raises:
        one of BROKER_ERRORS.
    """
    with app.connection_for_write() as connection:
        client = connection.default_channel.client
        return {queue: int(client.llen(queue)) for queue in messages.QUEUES}


def broker_answers(app: Celery) -> bool:
    """Whether Redis can be reached within the connection's timeouts."""
    try:
        with app.connection_for_write() as connection:
            return bool(connection.default_channel.client.ping())
    except BROKER_ERRORS:
        return False


def _send(app: Celery, message: Message) -> None:
    step = partial(_step, app, low=message.low)
    if isinstance(message, messages.ExtractMessage):
        work = step(messages.EXTRACT, str(message.run_id))
    elif isinstance(message, messages.PlanMessage):
        work = step(messages.PLAN, str(message.plan_id))
    elif message.normalized:
        work = step(messages.LOAD, message.batch_id)
    else:
        work = chain(step(messages.NORMALIZE, message.batch_id), step(messages.LOAD, message.batch_id))
    work.apply_async(retry=False)


def _step(app: Celery, task: str, identifier: str | int, *, low: bool) -> signature:
    queue = {"queue": messages.LOW_QUEUE} if low else {}
    return app.signature(task, args=(identifier,), immutable=True, options=queue)
