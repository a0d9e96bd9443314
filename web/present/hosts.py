"""Hosts, their circuit breakers and pauses, as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl.hosts.breaker import State
from etl.hosts.limiter import HostState

if TYPE_CHECKING:
    from sqlalchemy import Row


def present_hosts(states: dict[str, tuple[HostState, float]]) -> dict[str, Any]:
    """All hosts, those that are not called first; each state with the time at which it was read."""
    shown = [present_host(host, state, now) for host, (state, now) in states.items()]
    return {"breakers": sorted(shown, key=lambda one: (one["state"] == State.CLOSED, one["host"]))}


def present_host(host: str, state: HostState, now: float) -> dict[str, Any]:
    """A host whose state was read at this time, in epoch seconds."""
    circuit, budget = state.circuit, state.budget
    is_open = circuit.state(now) is not State.CLOSED
    return {
        "host": host,
        "state": circuit.state(now),
        "failures": circuit.failures,
        "opened_at": _time(circuit.opened_at) if is_open else None,
        "retry_at": _time(circuit.open_until) if is_open else None,
        "probing": bool(circuit.probe) and now < circuit.probe_until,
        "reason": circuit.reason or None,
        "paused_until": _time(budget.paused_until) if budget.paused_until > now else None,
        "pause_reason": budget.reason if budget.paused_until > now else None,
    }


MOST_HOSTS = 1000
MOST_SOURCES = 20


def present_asked_hosts(
    sources: dict[str, list[str]], states: dict[str, tuple[HostState, float]], took: dict[str, Row[Any]]
) -> dict[str, Any]:
    """The hosts of these sources, those that are not called first, then those with most sources."""
    shown = [
        _asked_host(host, names, *states.get(host, (HostState(), 0.0)), took.get(host))
        for host, names in sources.items()
    ]
    shown.sort(key=lambda one: (one["state"] == State.CLOSED, -one["sources_total"], one["host"]))
    return {"hosts": shown[:MOST_HOSTS], "hosts_total": len(shown)}


def _asked_host(host: str, names: list[str], state: HostState, now: float, took: Row[Any] | None) -> dict[str, Any]:
    budget = state.budget
    return {
        **present_host(host, state, now),
        "sources_total": len(names),
        "sources": names[:MOST_SOURCES],
        "interval": budget.interval if budget.interval and now < budget.interval_until else None,
        "next_at": _time(budget.next_at) if budget.next_at > now else None,
        "requests": took.requests if took else 0,
        "p50_seconds": took.p50 if took else None,
        "p95_seconds": took.p95 if took else None,
        "asked_at": took.asked_at if took else None,
    }


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
