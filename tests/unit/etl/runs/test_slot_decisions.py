"""What becomes of a slot that is due, by table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from etl.declare.source import Schedule
from etl.runs.schedule import NotNow, QuietHours, Wishes, decide, delay, may_be_quiet

HALF_HOURLY = Schedule(every="30m")
DAILY = Schedule(cron="0 6 * * *")


def at(time: str, day: int = 1) -> datetime:
    return datetime.fromisoformat(f"2026-01-{day:02}T{time}").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "now", "slot", "missed", "following"),
    [
        ("10:00", "10:00", "10:00", 0, "10:30"),
        ("10:00", "10:29:59", "10:00", 0, "10:30"),
        ("10:00", "10:30", "10:30", 1, "11:00"),
        ("10:00", "12:10", "12:00", 4, "12:30"),
    ],
)
def test_of_several_slots_the_newest_runs(first: str, now: str, slot: str, missed: int, following: str) -> None:
    found = decide(HALF_HOURLY, "a", at(first), at(now), Wishes())
    assert (found.slot, found.missed, found.following) == (at(slot), missed, at(following))
    assert (found.dispatch_at, found.left_out) == (None, None)


@pytest.mark.parametrize(
    ("wishes", "left_out"),
    [
        (Wishes(), None),
        (Wishes(not_before=at("10:00")), None),
        (Wishes(not_before=at("10:05")), None),  # it is 10:05
        (Wishes(not_before=at("10:06")), NotNow.ASKED_TO_WAIT),
        (Wishes(not_before=at("10:06"), is_set_aside=True), NotNow.SET_ASIDE),
        (Wishes(not_before=at("10:04"), is_set_aside=True), None),
        (Wishes(quiet=QuietHours([10])), NotNow.QUIET_HOUR),
        (Wishes(quiet=QuietHours([11])), None),
        (Wishes(quiet=QuietHours([], [3])), NotNow.QUIET_HOUR),  # a Thursday
        (Wishes(quiet=QuietHours([], [4])), None),
        (Wishes(quiet=QuietHours(list(range(24)))), None),  # always quiet was not meant
        (Wishes(not_before=at("10:06"), quiet=QuietHours([10])), NotNow.ASKED_TO_WAIT),
    ],
)
def test_a_slot_is_left_out_when_the_source_is_not_to_be_asked(wishes: Wishes, left_out: NotNow | None) -> None:
    assert decide(HALF_HOURLY, "a", at("10:00"), at("10:05"), wishes).left_out == left_out


def test_a_daily_source_runs_in_a_quiet_hour_when_all_its_slots_lie_there() -> None:
    assert not may_be_quiet(DAILY, QuietHours([6]), at("06:00"))
    assert may_be_quiet(DAILY, QuietHours([], [3]), at("06:00")), "tomorrow it runs"


def test_jitter_sends_a_run_out_later_but_keeps_its_slot() -> None:
    schedule = Schedule(every="30m", jitter="10m")
    wait = delay(schedule, "a", at("10:00"))
    assert timedelta(seconds=1) < wait < timedelta(minutes=10)
    on_time = decide(schedule, "a", at("10:00"), at("10:00"), Wishes())
    assert (on_time.slot, on_time.dispatch_at) == (at("10:00"), at("10:00") + wait)
    assert decide(schedule, "a", at("10:00"), at("10:00") + wait, Wishes()).dispatch_at is None
    assert decide(schedule, "a", at("10:00"), at("10:20"), Wishes()).dispatch_at is None
