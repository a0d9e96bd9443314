"""How long an answer is good for, by its own word: seconds in which asking again would be a waste."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from etl.http.status import http_date, server_time

if TYPE_CHECKING:
    from collections.abc import Mapping

# A file that is cached for a year is still looked at once a day.
LONGEST_FRESH = 86_400.0

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,10})")


def freshness(headers: Mapping[str, str]) -> float:
    """Seconds for which the answer stays fresh; 0 when it says nothing, or forbids to keep it."""
    control = headers.get("cache-control", "").lower()
    if "no-cache" in control or "no-store" in control:
        seconds = 0.0
    elif found := _MAX_AGE.search(control):
        age = headers.get("age", "").strip()
        seconds = float(found[1]) - (float(age) if re.fullmatch(r"\d{1,10}", age) else 0.0)
    elif expires := http_date(headers.get("expires", "")):
        seconds = (expires - server_time(headers)).total_seconds()
    else:
        seconds = 0.0
    poll = headers.get("x-poll-interval", "").strip()
    return clamp(max(seconds, float(poll) if re.fullmatch(r"\d{1,9}", poll) else 0.0))


def clamp(seconds: float) -> float:
    """Between nothing and a day."""
    return min(max(seconds, 0.0), LONGEST_FRESH)
