"""How the upgrade's watch measures locks."""

from __future__ import annotations

import threading

from bench.upgrade.traffic import Watch

HELD = ("etl_runs", "ShareLock", True)
WAITED = ("etl_runs", "AccessExclusiveLock", False)


def test_a_lock_counts_from_look_to_look_and_from_nothing_when_it_is_taken_again() -> None:
    times = iter([0.0, 1.0, 2.5, 3.0, 4.0])
    watch = Watch("", threading.Event(), lambda: next(times))
    for found in ({HELD, WAITED}, {HELD}, set(), {HELD}, {HELD, WAITED}):
        watch._note(found)
    assert watch.longest == {HELD: 1.0, WAITED: 0.0}
    assert watch.blocked() == 1.0


def test_who_waits_for_a_lock_keeps_others_from_writing_too() -> None:
    times = iter([0.0, 5.0])
    watch = Watch("", threading.Event(), lambda: next(times))
    watch._note({WAITED})
    watch._note({WAITED})
    assert (watch.longest, watch.blocked()) == ({WAITED: 5.0}, 5.0)
