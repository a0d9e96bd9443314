"""Which version of our reader takes times, numbers, texts, files and feeds for what they are.

It rises when a value that was read before is read otherwise. The changelog says what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.item import TARGETS, Kind

if TYPE_CHECKING:
    from etl.declare.source import AnySource

READER = 2
TIMES, NUMBERS, TEXTS, FILES, FEEDS = "times", "numbers", "texts", "files", "feeds"
# What each version reads otherwise than the one before.
CHANGES = {2: frozenset({TIMES, NUMBERS, TEXTS, FILES, FEEDS})}
_READ_AS = {Kind.TIME: TIMES, Kind.NUMBER: NUMBERS}
_FORMS = {"csv": FILES, "rss": FEEDS}


def reads(source: AnySource) -> frozenset[str]:
    """What a source has that a reader can read in another way."""
    targets = [field for field in TARGETS if source.map is None or field.name in source.map]
    kinds = {_READ_AS.get(field.kind, TEXTS) for field in targets}
    form = _FORMS.get(str(source.__struct_config__.tag))
    return frozenset(kinds | ({form} if form else set()))


def is_read_otherwise(source: AnySource, since: int) -> bool:
    """Whether something of a source is read otherwise than by the reader `since`."""
    what = reads(source)
    return any(version > since and changed & what for version, changed in CHANGES.items())
