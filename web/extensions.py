"""What a view works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from flask import current_app

from db.queries.items import RecentTotals

if TYPE_CHECKING:
    from celery import Celery

    from broker.host_states import RedisHostStates
    from config.settings import Settings
    from db.session import Database
    from web.lane import Lane


@dataclass(frozen=True)
class Service:
    """The parts that requests share."""

    settings: Settings
    database: Database
    producer: Celery
    hosts: RedisHostStates
    slow: Lane
    totals: RecentTotals = field(default_factory=RecentTotals)
    # Answers of `/stats` by page, and the snapshot they were read from.
    kept_stats: dict[tuple[int, int], tuple[bytes, str]] = field(default_factory=dict)


def service() -> Service:
    """The parts of the application that handles this request."""
    return cast("Service", current_app.extensions["kasparro"])
