"""The limiter before every host: one circuit breaker and one budget for all workers and sources.

The state of a host is small and lives in `HostStates`; each event reads it, decides, and writes it back if nobody else
has in the meantime.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from etl.hosts import breaker, budget
from etl.hosts.breaker import BreakerPolicy, Circuit
from etl.hosts.budget import Budget

T = TypeVar("T")


class HostState(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is remembered about a host."""

    circuit: Circuit = Circuit()
    budget: Budget = Budget()


# From a state and the time in epoch seconds to the next state, and what the caller wants to know.
Change = Callable[[HostState, float], tuple[HostState, T]]


class HostStates(Protocol):
    """Keeps the states of hosts."""

    def update(self, host: str, change: Change[T]) -> T:
        """Apply a change as one step; what it returned. The change may be tried several times."""


class LocalHostStates:
    """The states as this process alone knows them."""

    def __init__(self) -> None:
        self._states: dict[str, HostState] = {}
        self._lock = threading.Lock()

    def update(self, host: str, change: Change[T]) -> T:
        """Apply a change."""
        with self._lock:
            self._states[host], result = change(self._states.get(host, HostState()), time.time())
        return result


@dataclass(frozen=True)
class Admission:
    """May the call go out? If not, in how many seconds.

    `broken` says that the circuit is open, `paced` that the sources' own rate is what it waits for, `doubtful` that the
    host has failed lately, so that a success is news.
    """

    allowed: bool
    probe: bool = False
    wait: float = 0.0
    broken: bool = False
    paced: bool = False
    doubtful: bool = False
    reason: str = ""


class HostLimiter:
    """What one worker process asks before, and tells after, each call."""

    def __init__(self, store: HostStates, policy: BreakerPolicy, caller: str, *, moves_breakers: bool = True) -> None:
        """`caller` names this process among all others.

        One that moves no breaker only spends budgets, and never probes.
        """
        self._moves_breakers = moves_breakers
        self._store = store
        self._policy = policy
        self._caller = caller

    def admit(self, host: str, interval: float, lease: float) -> Admission:
        """Ask for an attempt that takes at most `lease` seconds; `interval` is the source's declared one."""

        def change(state: HostState, now: float) -> tuple[HostState, Admission]:
            circuit, passage = breaker.admit(state.circuit, now, self._caller, lease)
            if not passage.allowed or (passage.probe and not self._moves_breakers):
                return state, Admission(allowed=False, wait=passage.wait, broken=True, reason=circuit.reason)
            spent, wait = budget.spend(state.budget, now, interval)
            if wait:
                paced = state.budget.paused_until <= now
                return state, Admission(allowed=False, wait=wait, paced=paced, reason=state.budget.reason)
            circuit = circuit if self._moves_breakers else state.circuit
            doubtful = circuit != Circuit()
            return HostState(circuit, spent), Admission(allowed=True, probe=passage.probe, doubtful=doubtful)

        return self._store.update(host, change)

    def succeeded(self, host: str, admission: Admission) -> None:
        """A logical call succeeded. One that was admitted before the host's first failure says nothing of it."""
        if admission.doubtful:
            self._on_circuit(host, lambda circuit, _: breaker.succeed(circuit, self._caller))

    def failed(self, host: str, reason: str) -> None:
        """A logical call failed, after its retries, in a way that the host is to blame for."""
        spread = random.random()  # noqa: S311 -- spread, not secrecy
        self._on_circuit(
            host, lambda circuit, now: breaker.fail(circuit, now, self._caller, self._policy, spread, reason)
        )

    def released(self, host: str) -> None:
        """A logical call ended without saying anything about the host's health."""
        self._on_circuit(host, lambda circuit, _: breaker.release(circuit, self._caller))

    def pause(self, host: str, seconds: float, reason: str) -> None:
        """The host wants no request for some time, from any source."""

        def change(state: HostState, now: float) -> tuple[HostState, None]:
            paused = budget.pause(state.budget, now, seconds, reason)
            return msgspec.structs.replace(state, budget=paused), None

        self._store.update(host, change)

    def _on_circuit(self, host: str, decide: Callable[[Circuit, float], Circuit]) -> None:
        if not self._moves_breakers:
            return

        def change(state: HostState, now: float) -> tuple[HostState, None]:
            return msgspec.structs.replace(state, circuit=decide(state.circuit, now)), None

        self._store.update(host, change)
