from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from etl.declare.source import Schedule
from etl.runs.schedule import delay, due, next_slot


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(schedule: Schedule, start: datetime, count: int) -> list[datetime]:
    found = []
    for _ in range(count):
        start = next_slot(schedule, start)
        found.append(start)
    return found


def test_intervals_lie_on_the_epoch_grid() -> None:
    assert next_slot(Schedule(every="30m"), at("2026-01-01T10:07:03")) == at("2026-01-01T10:30")
    assert next_slot(Schedule(every="30m"), at("2026-01-01T10:30")) == at("2026-01-01T11:00")
    assert next_slot(Schedule(every="7m"), at("1970-01-01T00:00")) == at("1970-01-01T00:07")


def test_after_a_pause_the_newest_slot_runs_and_the_others_are_counted() -> None:
    found = due(Schedule(every="30m"), at("2026-01-01T10:00"), at("2026-01-01T12:10"))
    assert (found.slot, found.missed, found.following) == (at("2026-01-01T12:00"), 4, at("2026-01-01T12:30"))
    found = due(Schedule(cron="0 * * * *"), at("2026-01-01T10:00"), at("2026-01-01T14:10"))
    assert (found.slot, found.missed, found.following) == (at("2026-01-01T14:00"), 4, at("2026-01-01T15:00"))


def test_a_slot_on_time_has_missed_none() -> None:
    found = due(Schedule(every="30m"), at("2026-01-01T10:00"), at("2026-01-01T10:00:02"))
    assert (found.slot, found.missed, found.following) == (at("2026-01-01T10:00"), 0, at("2026-01-01T10:30"))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("line", ["30 2 * * *", "15 1 * * *", "0 3 * * *", "*/30 * * * *"])
def test_cron_slots_increase_through_every_clock_change(zone: str, line: str) -> None:
    schedule = Schedule(cron=line, timezone=zone)
    for start in (at("2026-03-07T12:00"), at("2026-03-28T12:00"), at("2026-10-24T12:00"), at("2026-10-31T12:00")):
        found = slots(schedule, start, 60)
        assert all(a < b for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize(
    ("zone", "start", "gap"),
    [
        ("Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00"),
        ("America/New_York", "2026-03-07T12:00", "2026-03-08T07:00"),
    ],
)
def test_a_time_that_does_not_exist_runs_at_the_next_valid_minute(zone: str, start: str, gap: str) -> None:
    schedule = Schedule(cron="30 2 * * *", timezone=zone)
    first, second = slots(schedule, at(start), 2)
    assert first == at(gap)
    assert second.astimezone(ZoneInfo(zone)).strftime("%H:%M") == "02:30"


@pytest.mark.parametrize(
    ("zone", "start", "line"),
    [("Europe/Berlin", "2026-10-24T12:00", "30 2 * * *"), ("America/New_York", "2026-10-31T12:00", "30 1 * * *")],
)
def test_an_hour_that_repeats_runs_once(zone: str, start: str, line: str) -> None:
    first, second = slots(Schedule(cron=line, timezone=zone), at(start), 2)
    assert second - first == timedelta(hours=24) or second - first == timedelta(hours=25)
    days = {moment.astimezone(ZoneInfo(zone)).date() for moment in (first, second)}
    assert len(days) == 2


def test_jitter_delays_within_its_bounds_and_is_the_same_everywhere() -> None:
    schedule = Schedule(every="1h", jitter="60s")
    found = {delay(schedule, f"s{n}", at("2026-01-01")) for n in range(50)}
    assert len(found) == 50
    assert all(timedelta() <= one < timedelta(seconds=60) for one in found)
    assert delay(schedule, "a", at("2026-01-01")) == delay(schedule, "a", at("2026-01-01"))
