"""Hosts, their circuit breakers and pauses, as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl.hosts.breaker import State

if TYPE_CHECKING:
    from etl.hosts.limiter import HostState


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


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
