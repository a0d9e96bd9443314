"""Where calls are counted: in Redis, which must not hold up what it counts."""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

# How long Redis may take to be reached, and again to answer: seconds.
PATIENCE = 0.02
IN_MEMORY = "memory://"


def counters(redis_url: str) -> tuple[str, dict[str, Any]]:
    """The address and options of a storage for flask-limiter; without a plain Redis each process counts alone."""
    if not redis_url.startswith(("redis://", "rediss://")):
        return IN_MEMORY, {}
    timeouts = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    return redis_url, {**timeouts, "retry": Retry(NoBackoff(), 0)}
