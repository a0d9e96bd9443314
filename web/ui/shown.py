"""How values look on pages: times, lengths, numbers and states."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from json import JSONEncoder
from typing import Any

import yaml
from cron_descriptor import FormatException, Options, get_description
from markupsafe import Markup

from etl.declare.duration import seconds as seconds_of
from etl.runs.outcome import Status

_JSON = JSONEncoder(ensure_ascii=False)
_STEPS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
# The icon of a state, and how it is meant: good, bad, odd, busy or still.
STATES = {
    Status.SUCCESS: ("check", "good"),
    Status.PARTIAL: ("circle-dot", "odd"),
    Status.FAILED: ("x", "bad"),
    Status.CANCELLED: ("ban", "still"),
    Status.SKIPPED: ("skip-forward", "still"),
    Status.QUEUED: ("clock", "busy"),
    Status.RUNNING: ("loader", "busy"),
    "late": ("alarm-clock", "odd"),
    "empty": ("inbox", "odd"),
    "odd_size": ("inbox", "odd"),
    "paused": ("pause", "still"),
    "disabled": ("circle-off", "still"),
    "set_aside": ("octagon-pause", "bad"),
    "gone": ("unplug", "bad"),
    "never_run": ("clock", "still"),
    "open": ("triangle-alert", "bad"),
    "half_open": ("circle-dot", "odd"),
    "closed": ("check", "good"),
    "healthy": ("check", "good"),
    "degraded": ("triangle-alert", "odd"),
    "unhealthy": ("x", "bad"),
    "sent": ("check", "good"),
    "pending": ("clock", "busy"),
    "firing": ("triangle-alert", "bad"),
    "recovered": ("check", "good"),
    "alive": ("check", "good"),
    "silent": ("x", "bad"),
    "done": ("check", "good"),
}


def moment(value: str | datetime | None) -> datetime | None:
    """A time as the API writes it."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def when(value: str | datetime | None, absent: str = "–") -> Markup:
    """A time; a script writes it in the zone of whoever looks, and says which that is."""
    at = moment(value)
    if at is None:
        return Markup('<span class="faint">{}</span>').format(absent)
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        utc.isoformat(timespec="seconds"), utc.strftime("%Y-%m-%d %H:%M:%S"), utc.strftime("%Y-%m-%d %H:%M UTC")
    )


def ago(value: str | datetime | None, absent: str = "never", now: datetime | None = None) -> Markup:
    """How long ago a time was, or how far ahead it is."""
    at = moment(value)
    if at is None:
        return Markup('<span class="faint">{}</span>').format(absent)
    away = ((now or datetime.now(UTC)) - at).total_seconds()
    said = f"{length(away)} ago" if away >= 0 else f"in {length(-away)}"
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC" data-ago>{}</time>').format(
        utc.isoformat(timespec="seconds"), utc.strftime("%Y-%m-%d %H:%M:%S"), said
    )


def length(value: float | Decimal | None) -> str:
    """A length of time: the two largest units of it."""
    if value is None:
        return "–"
    left = float(value)
    if left < 10:
        return f"{left:.1f} s" if left >= 0.05 else f"{left * 1000:.0f} ms"
    parts: list[str] = []
    for size, name in _STEPS:
        if left >= size or (name == "s" and not parts):
            parts.append(f"{int(left // size)} {name}")
            left %= size
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def count(value: float | Decimal | None) -> str:
    """A number with its groups apart."""
    return "–" if value is None else f"{value:,}".replace(",", "\u2009")


def size(value: float | Decimal | None) -> str:
    """Bytes."""
    if value is None:
        return "–"
    left = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if left < 1024 or unit == "GiB":
            return f"{left:.0f} {unit}" if unit == "B" or left >= 100 else f"{left:.1f} {unit}"
        left /= 1024
    return ""


def words(value: Any) -> str:
    """A code as words."""
    return str(value).replace("_", " ")


def schedule(declared: dict[str, Any] | None) -> str:
    """A schedule in words."""
    if not declared:
        return "none"
    if declared.get("every"):
        return f"every {length(seconds_of(declared['every']))}"
    try:
        told = get_description(declared["cron"], Options(use_24hour_time_format=True))
    except FormatException:
        return str(declared["cron"])
    return f"{told[0].lower()}{told[1:]} ({declared.get('timezone', 'UTC')})"


def as_yaml(value: Any) -> str:
    """A document as a person would write it."""
    return yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True, width=100)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def pretty(value: Any) -> str:
    """A value as JSON on one line; numbers as they are."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{pretty(str(key))}: {pretty(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(pretty, value)) + "]"
    if isinstance(value, Decimal):
        return str(value)
    return _JSON.encode(value)


FILTERS = {
    "when": when,
    "ago": ago,
    "span": length,
    "number": count,
    "bytes": size,
    "words": words,
    "schedule": schedule,
    "yaml": as_yaml,
    "json": pretty,
}
