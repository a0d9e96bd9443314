"""What declared things are made of: the base type, common kinds of text, and the checks they share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Meta, Struct

from etl.declare.duration import PATTERN
from etl.declare.paths import complaint

Name = Annotated[str, Meta(pattern="^[a-z0-9_]{1,100}$(?!\\n)", description="lower-case letters, digits and _")]
Tag = Annotated[str, Meta(pattern="^[a-z0-9_-]{1,50}$(?!\\n)", description="lower-case letters, digits, _ and -")]
MOST_TAGS = 20
Duration = Annotated[str, Meta(pattern=PATTERN, description="a number and a unit: 500ms, 30s, 30m, 1h, 7d")]
Rate = Annotated[
    str, Meta(pattern="^[1-9][0-9]{0,5}/[smhd]$(?!\\n)", description="requests per second, minute, hour or day: 10/m")
]
Url = Annotated[
    str,
    Meta(
        pattern=r"^(https?://[^/@]+|\$\{[A-Za-z_][A-Za-z0-9_]*\})(/.*)?$(?!\n)",
        description="http or https, without user info; may start with ${NAME}",
    ),
]
CRON_FIELDS = 5
Scalar = str | int | float | bool


class Model(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all declared things: an unknown key is an error."""


def check_tags(tags: list[str]) -> None:
    """Refuse tags that are too many, or stand twice."""
    if len(tags) > MOST_TAGS:
        raise ValueError(f"`tags`: there are more than {MOST_TAGS}")
    if len(set(tags)) < len(tags):
        raise ValueError("`tags`: one stands twice")


def interval_of(rate: str | None) -> float:
    """Seconds between two requests at a rate, 0 without one."""
    if rate is None:
        return 0.0
    count, _, unit = rate.partition("/")
    return {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}[unit] / int(count)


def zone(name: str, key: str = "timezone") -> ZoneInfo:
    """The time zone of this name; the key is named when there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"`{key}`: unknown time zone {name!r}") from error


def check_path(text: str, key: str) -> None:
    """Refuse what is not JMESPath, naming the key."""
    if wrong := complaint(text):
        raise ValueError(f"`{key}`: {wrong}")


def check_cron(line: str) -> None:
    """Refuse what is not a five-field cron line."""
    if len(line.split()) != CRON_FIELDS:
        raise ValueError(f"`cron`: {line!r} is not a cron line: it has five fields, the first is the minute")
    try:
        next(CronSim(line, datetime(2000, 1, 1)))  # noqa: DTZ001 -- only tries the line
    except CronSimError as error:
        raise ValueError(f"`cron`: {line!r} is not a cron line: {error}") from error
    except StopIteration as error:
        raise ValueError(f"`cron`: {line!r} names a date that never comes") from error
