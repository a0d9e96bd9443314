"""The decisions of the breaker and the budget, with time as an argument."""

from __future__ import annotations

import pytest

from etl.hosts import breaker, budget
from etl.hosts.breaker import BreakerPolicy, Circuit, State
from etl.hosts.budget import Budget

POLICY = BreakerPolicy(threshold=5, reset=60)


def failed(circuit: Circuit, now: float, times: int = 1, caller: str = "a") -> Circuit:
    for _ in range(times):
        circuit = breaker.fail(circuit, now, caller, POLICY, 0.5, "it broke")
    return circuit


def opened(now: float = 0) -> Circuit:
    return failed(Circuit(), now, 5)


def test_it_opens_after_the_threshold_and_not_before() -> None:
    assert failed(Circuit(), 0, 4).state(0) is State.CLOSED
    assert opened().state(0) is State.OPEN
    assert opened().state(59.9) is State.OPEN
    assert opened().state(60.1) is State.HALF_OPEN
    assert opened().reason == "it broke"


def test_a_success_in_between_starts_the_count_anew() -> None:
    circuit = breaker.succeed(failed(Circuit(), 0, 4), "a")
    assert circuit == Circuit()
    assert failed(circuit, 0, 4).state(0) is State.CLOSED


def test_what_says_nothing_neither_counts_nor_resets() -> None:
    circuit = breaker.release(failed(Circuit(), 0, 4), "a")
    assert failed(circuit, 0).state(0) is State.OPEN


def test_one_probe_at_a_time() -> None:
    circuit, first = breaker.admit(opened(), 61, "a", 30)
    circuit, second = breaker.admit(circuit, 62, "b", 30)
    assert (first.allowed, first.probe) == (True, True)
    assert (second.allowed, second.wait) == (False, 29)


def test_a_crashed_probe_frees_its_place() -> None:
    circuit, _ = breaker.admit(opened(), 61, "a", 30)
    circuit, next_probe = breaker.admit(circuit, 91.1, "b", 30)
    assert next_probe.probe
    # The one that was late has nothing to say any more.
    assert breaker.succeed(circuit, "a") == circuit
    assert failed(circuit, 92, caller="a") == circuit


def test_the_probe_decides() -> None:
    circuit, _ = breaker.admit(opened(), 61, "a", 30)
    assert breaker.succeed(circuit, "a") == Circuit()
    again = failed(circuit, 61)
    assert again.state(61) is State.OPEN
    assert again.open_until - 61 == pytest.approx(120)


def test_a_probe_that_proves_nothing_makes_way_at_once() -> None:
    circuit, _ = breaker.admit(opened(), 61, "a", 30)
    _, passage = breaker.admit(breaker.release(circuit, "a"), 61, "b", 30)
    assert passage.probe


def test_what_was_under_way_when_it_opened_does_not_count() -> None:
    assert failed(opened(), 1, caller="b") == opened()
    assert breaker.succeed(opened(), "b") == opened()


def test_waits_double_up_to_a_quarter_of_an_hour() -> None:
    circuit, now, waits = opened(), 0.0, []
    for _ in range(7):
        waits.append(round(circuit.open_until - now))
        now = circuit.open_until + 1
        circuit, passage = breaker.admit(circuit, now, "a", 30)
        assert passage.probe
        circuit = failed(circuit, now)
    assert waits == [60, 120, 240, 480, 900, 900, 900]


def test_waits_are_spread() -> None:
    waits = {breaker.fail(failed(Circuit(), 0, 4), 0, "a", POLICY, spread, "").open_until for spread in (0, 0.5, 1)}
    assert waits == {57, 60, 63}


def test_a_budget_without_limits_is_free() -> None:
    assert budget.spend(Budget(), 100, 0) == (Budget(), 0)


def test_a_pause_holds_for_everyone() -> None:
    paused = budget.pause(Budget(), 100, 30, "busy")
    assert budget.spend(paused, 110, 0)[1] == 20
    assert budget.spend(paused, 131, 0)[1] == 0
    # A shorter one does not end it.
    assert budget.pause(paused, 101, 1, "less") == paused


def test_a_declared_rate_is_never_exceeded() -> None:
    state, now, sent = Budget(), 0.0, []
    while now < 120:
        state, wait = budget.spend(state, now, 6.0)
        if not wait:
            sent.append(now)
        now += wait or 0.1
    for start in sent:
        assert sum(1 for moment in sent if start <= moment < start + 60) <= 10
    assert len(sent) >= 19


def test_the_strictest_rate_of_a_host_holds_for_all_its_sources() -> None:
    state, _ = budget.spend(Budget(), 0, 6.0)
    assert budget.spend(state, 1, 0)[1] == 5
    assert budget.spend(state, 1, 1.0)[1] == 5
    # Until nobody declares it any more.
    assert budget.spend(state, 2 * budget.RATE_KEPT, 0) == (state, 0)
