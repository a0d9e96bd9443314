"""What all workers know about the hosts they call, in Redis: it may vanish at any time, and costs nothing but manners.

While Redis is away each process goes by what it has seen itself.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec
import structlog

from broker.messaging import BROKER_ERRORS, client, make_producer
from etl.hosts.breaker import Circuit
from etl.hosts.limiter import HostState, LocalHostStates
from etl.http.address import declared_host
from etl.runs.why import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery
    from redis import Redis

    from etl.hosts.limiter import Change

T = TypeVar("T")

PREFIX = "kasparro:host:"
# A host that nobody asked about for a day starts afresh.
KEPT_SECONDS = 86_400
# After an error Redis is left alone for this long: seconds.
AWAY_SECONDS = 10.0
# Tries to write the state of a host. A try fails when another process wrote it meanwhile, which is rare.
MAX_EXCHANGES = 50
LISTED = 1000

# Write only what nobody else has changed since it was read; an empty text stands for none.
_EXCHANGE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""

log = structlog.get_logger(__name__)


class RedisHostStates:
    """The states of hosts in Redis, by its clock."""

    def __init__(self, app: Celery | None = None) -> None:
        """`app` knows the way to Redis; it must not wait long for it."""
        self._app = app or make_producer()
        self._redis: Redis | None = None

    def update(self, host: str, change: Change[T]) -> T:
        """Apply a change as one step.

        Raises:
            one of BROKER_ERRORS.
        """
        return self._guarded(lambda redis: self._update(redis, host, change))

    def all(self) -> dict[str, tuple[HostState, float]]:
        """The states that are remembered, with the time at which they were read; at most 1,000.

        Raises:
            one of BROKER_ERRORS.
        """
        return self._guarded(self._all)

    def find(self, host: str) -> tuple[HostState, float]:
        """The state of a host, and the time at which it was read.

        Raises:
            one of BROKER_ERRORS.
        """
        return self.update(host, lambda state, now: (state, (state, now)))

    def reset(self, host: str) -> tuple[HostState, float] | None:
        """Close the circuit of a host and end its pause; None when nothing is known about it.

        Raises:
            one of BROKER_ERRORS.
        """

        def change(state: HostState, now: float) -> tuple[HostState, tuple[HostState, float] | None]:
            if state == HostState():
                return state, None
            budget = msgspec.structs.replace(state.budget, paused_until=0.0, reason="")
            fresh = HostState(Circuit(), budget)
            return fresh, (fresh, now)

        return self.update(host, change)

    def _guarded(self, work: Callable[[Redis], T]) -> T:
        try:
            if self._redis is None:
                self._redis = client(self._app)
            return work(self._redis)
        except BROKER_ERRORS:
            self._redis = None
            raise

    def _update(self, redis: Redis, host: str, change: Change[T]) -> T:
        for _ in range(MAX_EXCHANGES):
            before, now = self._read(redis, host)
            state = _decode(before)
            after, result = change(state, now)
            if after == state or self._exchange(redis, host, before, after):
                return result
            time.sleep(random.random() / 100)  # noqa: S311 -- spread, not secrecy
        raise TimeoutError(f"too many rivals for the state of {host}")

    @staticmethod
    def _read(redis: Redis, host: str) -> tuple[bytes, float]:
        pipe = redis.pipeline(transaction=False)
        pipe.get(PREFIX + host)
        pipe.time()
        value, (seconds, micros) = pipe.execute()
        return value or b"", seconds + micros / 1e6

    @staticmethod
    def _exchange(redis: Redis, host: str, before: bytes, after: HostState) -> bool:
        written = b"" if after == HostState() else msgspec.json.encode(after)
        return bool(redis.eval(_EXCHANGE, 1, PREFIX + host, before, written, str(KEPT_SECONDS)))

    def _all(self, redis: Redis) -> dict[str, tuple[HostState, float]]:
        names = [key for key, _ in zip(redis.scan_iter(PREFIX + "*", count=500), range(LISTED), strict=False)]
        if not names:
            return {}
        seconds, micros = redis.time()
        now = seconds + micros / 1e6
        values = cast("list[bytes | None]", redis.mget(names))
        return {
            name.decode().removeprefix(PREFIX): (_decode(value or b""), now)
            for name, value in zip(names, values, strict=True)
        }


class HostStatesWithFallback:
    """Redis while it answers, else what this process has seen itself: a host is never locked out by a lost Redis."""

    def __init__(self, shared: RedisHostStates) -> None:
        self._shared = shared
        self._local = LocalHostStates()
        self._away_until = 0.0

    def update(self, host: str, change: Change[T]) -> T:
        """Apply a change."""
        if time.monotonic() < self._away_until:
            return self._local.update(host, change)
        try:
            result = self._shared.update(host, change)
        except BROKER_ERRORS as error:
            if not self._away_until:
                log.warning("host_states_local", reason=str(error)[:200])
            self._away_until = time.monotonic() + AWAY_SECONDS
            return self._local.update(host, change)
        self._away_until = 0.0
        return result


def host_of_source(states: RedisHostStates, url: str | None, environment: Mapping[str, str]) -> Host | None:
    """The host of a declared address, with what is remembered of it; None where nobody knows."""
    name = declared_host(url, environment)
    if name is None:
        return None
    try:
        state, now = states.find(name)
    except BROKER_ERRORS:
        return None
    return Host(name, state, now)


def _decode(value: bytes) -> HostState:
    """What another version wrote and this one cannot read is forgotten."""
    try:
        return msgspec.json.decode(value, type=HostState) if value else HostState()
    except msgspec.MsgspecError:
        return HostState()
