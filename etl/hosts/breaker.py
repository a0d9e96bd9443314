"""The circuit breaker: decisions about one host. Keeping and sharing the circuit is the limiter's.

Closed: calls go through. Open: none does, for `reset` x 1, 2, 4 … seconds. Half open: exactly one caller, the probe,
goes through; its lease frees it should the caller die. The probe's success closes the circuit, its failure opens it
for longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

LONGEST_OPEN = 900.0
# The wait is spread by this share, so that probes of many hosts do not meet.
SPREAD = 0.1


class State(StrEnum):
    """What a circuit can be."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerPolicy:
    """Opens after `threshold` failed calls in a row, for `reset` seconds at first.

    A success starts the count anew, if its call began after the first failure. Calls that found the host without any
    failure do not report their success: that would be a look at the host's state for each of them.
    """

    threshold: int
    reset: float


class Circuit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known about a host. Times are epoch seconds of whoever keeps the circuit.

    `opened` counts the openings since it was last closed; `probe` names the caller that holds the probe.
    """

    failures: int = 0
    opened: int = 0
    opened_at: float = 0.0
    open_until: float = 0.0
    probe: str = ""
    probe_until: float = 0.0
    reason: str = ""

    def state(self, now: float) -> State:
        """Closed, open or half open."""
        if not self.opened:
            return State.CLOSED
        return State.OPEN if now < self.open_until else State.HALF_OPEN


@dataclass(frozen=True)
class Passage:
    """Whether a call may go through: at once, as the probe, or not for `wait` seconds."""

    allowed: bool
    probe: bool = False
    wait: float = 0.0


def admit(circuit: Circuit, now: float, caller: str, lease: float) -> tuple[Circuit, Passage]:
    """Decide about a call. A probe holds its place for `lease` seconds; its own further attempts stay the probe's."""
    state = circuit.state(now)
    if state is State.CLOSED:
        return circuit, Passage(allowed=True)
    if state is State.OPEN:
        return circuit, Passage(allowed=False, wait=circuit.open_until - now)
    if circuit.probe not in {"", caller} and now < circuit.probe_until:
        return circuit, Passage(allowed=False, wait=circuit.probe_until - now)
    probing = msgspec.structs.replace(circuit, probe=caller, probe_until=now + lease)
    return probing, Passage(allowed=True, probe=True)


def succeed(circuit: Circuit, caller: str) -> Circuit:
    """A call succeeded. One that was under way when the circuit opened proves nothing: the probe decides."""
    return Circuit() if not circuit.opened or circuit.probe == caller else circuit


def fail(circuit: Circuit, now: float, caller: str, policy: BreakerPolicy, spread: float, reason: str) -> Circuit:
    """A call failed, after its retries. `spread` is a random number, 0 to 1."""
    if circuit.opened and circuit.probe != caller:
        return circuit
    failures = circuit.failures + 1
    if not circuit.opened and failures < policy.threshold:
        return msgspec.structs.replace(circuit, failures=failures, reason=reason)
    wait = min(policy.reset * 2 ** min(circuit.opened, 30), LONGEST_OPEN) * (1 + SPREAD * (spread - 0.5))
    return Circuit(
        failures=failures,
        opened=circuit.opened + 1,
        opened_at=now,
        open_until=now + min(wait, LONGEST_OPEN),
        reason=reason,
    )


def release(circuit: Circuit, caller: str) -> Circuit:
    """A call ended in a way that says nothing about the host: a probe gives its place back."""
    if circuit.probe != caller:
        return circuit
    return msgspec.structs.replace(circuit, probe="", probe_until=0.0)
