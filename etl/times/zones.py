"""What follows a time: an offset, the name of a zone, or both."""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from re import Match

# Minutes east of UTC: the names of RFC 2822, and those that mean one zone wherever they are used.
_NAMES_BY_MINUTES = {
    -600: "HST",
    -540: "AKST",
    -480: "PST AKDT",
    -420: "MST PDT",
    -360: "CST MDT",
    -300: "EST CDT COT PET",
    -240: "EDT VET",
    -210: "NST",
    -180: "BRT ART UYT",
    -150: "NDT",
    0: "Z UT UTC GMT WET",
    60: "WEST CET MET MEZ WAT",
    120: "CEST MEST MESZ EET CAT SAST",
    180: "EEST MSK TRT EAT",
    210: "IRST",
    270: "IRDT",
    300: "PKT",
    345: "NPT",
    420: "ICT WIB",
    480: "WITA HKT SGT MYT AWST",
    540: "WIT JST KST",
    570: "ACST",
    600: "AEST",
    630: "ACDT",
    660: "AEDT",
    720: "NZST",
    780: "NZDT",
}
ABBREVIATIONS = {name: minutes for minutes, names in _NAMES_BY_MINUTES.items() for name in names.split()}

_NAME = re.compile(r"[A-Za-z]{1,6}")
_PLACE = re.compile(r"[A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2}")
_COMMENT = re.compile(r" ?(?:\([^()]{1,60}\)|\[[^\[\]]{1,60}\])$")
_OFFSET = re.compile(
    r"(?:(?:UTC|GMT) ?(?P<sign>[+-])(?P<hours>\d{1,2})(?::?(?P<minutes>\d{2}))?"
    r"|(?P<plain_sign>[+-])(?P<plain_hours>\d{2})(?::?(?P<plain_minutes>\d{2})(?::?00)?)?)(?P<name> [A-Za-z]{1,6})?"
)
# After a date alone `-10` may as well be an hour.
_AFTER_DATE = re.compile(r"[+-]\d{2}:\d{2}")
_MOST_HOURS, _MOST_MINUTES = 15, 59


def read_zone(written: str, names: Mapping[str, ZoneInfo], *, has_time: bool = True) -> tzinfo | None:
    """The zone that stands after a time or a date, None where nothing does.

    `names` says what abbreviations mean, before the table does. Raises ValueError for what cannot be read whole.
    """
    text = written.strip()
    if not text:
        return None
    comment = _COMMENT.search(text)
    if comment:
        # What explains an offset or a name; alone it is the zone itself.
        text = text[: comment.start()] or comment[0].strip(" ()[]")
    if offset := _OFFSET.fullmatch(text):
        if not has_time and not _AFTER_DATE.fullmatch(text):
            raise ValueError(f"{text!r} after a date may be an hour or an offset")
        return _agreed(_offset(offset), (offset["name"] or "").strip(), names)
    return named(text, names)


def named(name: str, names: Mapping[str, ZoneInfo]) -> tzinfo:
    """A zone by its abbreviation or by its place, such as Europe/Berlin."""
    if declared := names.get(name) or names.get(name.upper()):
        return declared
    if name.upper() in ABBREVIATIONS:
        return _minutes(ABBREVIATIONS[name.upper()])
    if _PLACE.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"unknown time zone {name!r}") from error
    if _NAME.fullmatch(name):
        raise ValueError(
            f"the time zone {name!r} is unknown or has several meanings; "
            f"say which it is by `timezone_names: {{{name}: Europe/Berlin}}`"
        )
    raise ValueError(f"{name[:40]!r} is no time zone")


def _offset(found: Match[str]) -> tzinfo:
    prefix = "" if found["sign"] else "plain_"
    hours, minutes = int(found[prefix + "hours"]), int(found[prefix + "minutes"] or 0)
    if hours > _MOST_HOURS or minutes > _MOST_MINUTES:
        raise ValueError(f"no zone is {found[0]!r} from UTC")
    return _minutes((hours * 60 + minutes) * (-1 if found[prefix + "sign"] == "-" else 1))


def _agreed(offset: tzinfo, name: str, names: Mapping[str, ZoneInfo]) -> tzinfo:
    """An offset decides, unless the name beside it is known to be another one."""
    known = None if name.upper() in names else ABBREVIATIONS.get(name.upper())
    if known is not None and _minutes(known) != offset:
        raise ValueError(f"{name!r} is another zone than the offset before it")
    return offset


def _minutes(minutes: int) -> tzinfo:
    return timezone(timedelta(minutes=minutes)) if minutes else UTC
