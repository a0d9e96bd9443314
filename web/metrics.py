"""What Prometheus scrapes: the state of the service as PostgreSQL and Redis have it, and what this web has seen.

The first is the same whichever process answers. The second is counted by each process, and added up over those of one
gunicorn, in files that it keeps for that (`PROMETHEUS_MULTIPROC_DIR`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask import g, request
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from db.queries.counters import ALERTS, OUTCOMES, RECORDS, RUNS, TAKEOVERS
from etl.alerts.incident import Delivery
from etl.hosts.breaker import State
from etl.runs.outcome import ENDED
from web.auth import INSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask, Response
    from prometheus_client.core import Metric

    from db.session import Database
    from etl.hosts.limiter import HostState

KIND = "text/plain; version=0.0.4; charset=utf-8"
# Hosts and sources that are named, so that a list has an end.
MOST_NAMED = 100
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_BEGINNING = {
    **{(RUNS, str(status)): 0 for status in ENDED},
    **{(RECORDS, outcome): 0 for outcome in OUTCOMES},
    **{(ALERTS, str(outcome)): 0 for outcome in (Delivery.SENT, Delivery.FAILED)},
}

_registry = CollectorRegistry()
_requests = Histogram(
    "kasparro_http_request_seconds",
    "How long requests took to be answered, by operation and status.",
    ("method", "operation", "status"),
    buckets=_BUCKETS,
    registry=_registry,
)
_pool = Gauge(
    "kasparro_pool_connections",
    "Connections to the database that were at work when each process of the web was asked last.",
    registry=_registry,
    multiprocess_mode="livesum",
)


def install(app: Flask, database: Database) -> None:
    """Time every request."""

    @app.before_request
    def _start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def _time(response: Response) -> Response:
        if INSIDE in request.environ:
            return response
        took = time.perf_counter() - g.get("started", time.perf_counter())
        # What nobody offers has no name of its own: anyone may ask for any path.
        operation = (request.endpoint or "none").rpartition(".")[2]
        _requests.labels(request.method if request.endpoint else "ANY", operation, response.status_code).observe(took)
        _pool.set(database.in_use)
        return response


def exposed(families: Iterator[Metric], database: Database) -> bytes:
    """All of it, as Prometheus reads it."""
    _pool.set(database.in_use)
    registry = CollectorRegistry()
    registry.register(_Families(families))
    own = _registry
    if ValueClass is not MutexValue:
        own = CollectorRegistry()
        MultiProcessCollector(own)  # type: ignore[no-untyped-call]
    return generate_latest(registry) + generate_latest(own)


class _Families:
    def __init__(self, families: Iterator[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        return self._families


def of_database(found: dict[str, Any]) -> Iterator[Metric]:
    """What PostgreSQL has."""
    yield from _counted(found["counters"])
    states = {name: count for name, count in found["sources"]._asdict().items() if name != "total"}
    yield _gauge("sources", "Sources, by their state; one may be in several.", "state", states)
    yield _gauge("sources_declared", "Sources that are declared.", value=found["sources"].total)
    runs = {name: getattr(found["runs"], name) for name in ("queued", "running", "waiting")}
    yield _gauge("runs", "Runs that are not over, by their state.", "state", runs)
    yield _gauge(
        "rejected_records_open",
        "Open cases of rejected records; no more than 10,001 are counted.",
        value=found["cases"],
    )
    yield _gauge("items", "Items that are served.", value=found["items"])
    lags = {row.name: row.seconds for row in found["lags"]}
    yield _gauge("source_lag_seconds", "Since sources were read last: the longest, late ones first.", "source", lags)
    late = {row.name: 1 for row in found["lags"] if row.is_late}
    yield _gauge("source_late", "Sources that are late, of those with the longest lag.", "source", late)
    oldest = {name: _age(at, found["now"]) for name, at in found["oldest"].items()}
    yield _gauge("queue_oldest_seconds", "Since when the oldest message of a queue waits.", "queue", oldest)
    yield _gauge("processes", "Workers and schedulers that were seen just now.", "kind", found["alive"])
    yield _gauge(
        "scheduler_silent_seconds", "Since a scheduler was seen.", value=_age(found["scheduler"], found["now"], None)
    )
    yield _gauge("alerts_pending", "Messages to addresses of alerts that are on their way.", value=found["alerts"])
    connections = {row.name: row.open for row in found["connections"]}
    yield _gauge("database_connections", "Connections to the database, by whose they are.", "process", connections)
    yield _gauge("database_bytes", "How large the database is.", value=found["bytes"])


def _counted(counters: dict[tuple[str, str], int]) -> Iterator[Metric]:
    runs = CounterMetricFamily("kasparro_runs", "Runs of fetching that ended, by how.", labels=["status"])
    records = CounterMetricFamily(
        "kasparro_records", "Records of runs that ended, by what became of them.", labels=["outcome"]
    )
    takeovers = CounterMetricFamily("kasparro_takeovers", "Work that was taken from workers that died or stopped.")
    takeovers.add_metric([], counters.get((TAKEOVERS, ""), 0))
    alerts = CounterMetricFamily(
        "kasparro_alerts", "Messages to addresses of alerts, by what became of them.", labels=["outcome"]
    )
    families = {RUNS: runs, RECORDS: records, ALERTS: alerts}
    # From the first on: what begins with its first value does not grow by it.
    for (name, label), value in (_BEGINNING | counters).items():
        if name in families:
            families[name].add_metric([label], value)
    return iter((runs, records, takeovers, alerts))


def of_broker(lengths: dict[str, int], states: dict[str, tuple[HostState, float]] | None) -> Iterator[Metric]:
    """What Redis has; nothing of it while it is away."""
    yield _gauge("broker_up", "Whether Redis answers.", value=int(states is not None))
    yield _gauge("queue_messages", "Messages that wait in a queue.", "queue", lengths)
    hosts = sorted((states or {}).items())
    broken = {name: 1 for name, (state, now) in hosts if state.circuit.state(now) is not State.CLOSED}
    yield _gauge("breaker_open", "Hosts that are not called because they fail.", "host", broken)
    waits = {name: state.budget.paused_until - now for name, (state, now) in hosts if state.budget.paused_until > now}
    yield _gauge("host_paused_seconds", "For how long hosts have asked not to be called.", "host", waits)


def up(database: bool) -> Metric:  # noqa: FBT001 -- what is said
    """Whether there is a database to be asked."""
    return _gauge("database_up", "Whether PostgreSQL answers.", value=int(database))


def _gauge(
    name: str, told: str, label: str | None = None, values: dict[str, Any] | None = None, *, value: float | None = None
) -> GaugeMetricFamily:
    """One number, or one for each of some names; what is not known is left out."""
    made = GaugeMetricFamily(f"kasparro_{name}", told, labels=[label] if label else None)
    if label is None and value is not None:
        made.add_metric([], value)
    for key, each in list((values or {}).items())[:MOST_NAMED]:
        made.add_metric([key], each)
    return made


def _age(at: Any, now: Any, otherwise: float | None = 0.0) -> Any:
    return (now - at).total_seconds() if at else otherwise
