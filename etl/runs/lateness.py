"""When a source is late: nothing has been read of it for longer than it declares, or than its schedule lets expect."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from cronsim import CronSim

from etl.declare.duration import seconds

if TYPE_CHECKING:
    from etl.declare.source import Schedule, Source

# Of what was not declared: so many slots may pass without a good run, or so many seconds.
SLOTS = 3
LEAST_SECONDS = 900.0
# A feed that rests at some hours may be silent for a day, and one that rests on some days for a week, beside that.
REST_HOURS = timedelta(hours=24).total_seconds()
REST_DAYS = timedelta(days=7).total_seconds()
# So many slots of a cron line are looked at for the longest time between two.
_LOOKED_AT = 200


def late_after(source: Source) -> float | None:
    """For how long, in seconds, nothing may have been read of a source; None without a schedule."""
    if source.expect_every is not None:
        return seconds(source.expect_every)
    if source.schedule is None:
        return None
    return max(SLOTS * _gap(source.schedule), LEAST_SECONDS)


def _gap(schedule: Schedule) -> float:
    """The longest time between two slots, in seconds."""
    return seconds(schedule.every) if schedule.every is not None else _cron_gap(schedule.cron or "")


@lru_cache(maxsize=1000)
def _cron_gap(line: str) -> float:
    slots = list(islice(CronSim(line, datetime(2001, 1, 1)), _LOOKED_AT))  # noqa: DTZ001 -- an hour more or less
    return max((after - before).total_seconds() for before, after in pairwise(slots))
