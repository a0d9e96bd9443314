"""What one process works with: made on first use, and never shared across a fork."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from broker.host_states import HostStatesWithFallback, RedisHostStates
from config import settings
from db.session import LOCK_SECONDS, Database
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter
from etl.runs.messages import Message
from worker.app import pool_size

if TYPE_CHECKING:
    from config.settings import Settings
    from etl.hosts.limiter import HostStates

# How long a database that is away, or a lock, is waited for: a part of the lease, and at most so many seconds.
PATIENCE = 0.4
MOST_PATIENCE = 30.0

# Sends messages; those that could not be sent come back.
Publish = Callable[[list[Message]], object]


@dataclass(frozen=True)
class Process:
    """The settings, the database and the limiter before the hosts; `name` is known in leases and logs.

    `settings.worker_processes` is how many the worker really has: `--concurrency` may have said otherwise.
    """

    name: str
    settings: Settings
    database: Database
    limiter: HostLimiter
    # Batches and their states, of which an attempt is still to be given back.
    owed: set[tuple[int, str]] = field(default_factory=set)

    @property
    def lease_seconds(self) -> float:
        """How long a claim holds."""
        return self.settings.lease.total_seconds()


def current() -> Process:
    """What this process works with."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> Process:
    """Keyed by process id: a forked child makes its own."""
    mine = settings.load_connected()
    mine = replace(mine, worker_processes=pool_size() or mine.worker_processes)
    # The lease outlives the work on it and what is written when that fails, each with its own patience.
    lease = mine.lease.total_seconds()
    database = Database(
        mine.database_url,
        name=f"kasparro-worker-{pid}",
        patience=min(MOST_PATIENCE, PATIENCE * lease),
        lock_seconds=min(LOCK_SECONDS, PATIENCE * lease),
    )
    return make(mine, database, HostStatesWithFallback(RedisHostStates()))


def make(mine: Settings, database: Database, states: HostStates) -> Process:
    """What this process works with, given its settings, its database and what is known of hosts."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    policy = BreakerPolicy(mine.breaker_threshold, mine.breaker_reset.total_seconds())
    return Process(name, mine, database, HostLimiter(states, policy, name))
