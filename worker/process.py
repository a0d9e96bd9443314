"""What one process holds: its settings and its database, made on first use and never shared across a fork."""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import TYPE_CHECKING

import settings
from db.session import Database
from etl.breaker import BreakerPolicy
from etl.gate import Gate
from hosts import RedisStore, SharedStore

if TYPE_CHECKING:
    from settings import Settings


def current_settings() -> Settings:
    """The settings of this process."""
    return settings.load_connected()


def name() -> str:
    """Names this process in leases and logs."""
    return f"{socket.gethostname()}:{os.getpid()}"


def database() -> Database:
    """The database of this process."""
    return _database_of(os.getpid())


def gate() -> Gate:
    """The gate before the hosts that this process calls."""
    return _gate_of(os.getpid())


@cache
def _gate_of(_: int) -> Gate:
    current = settings.load_connected()
    policy = BreakerPolicy(current.breaker_threshold, current.breaker_reset.total_seconds())
    return Gate(SharedStore(RedisStore()), policy, name())


@cache
def _database_of(pid: int) -> Database:
    """Keyed by process id: a forked child makes its own."""
    return Database(settings.load_connected().database_url, name=f"kasparro-worker-{pid}")
