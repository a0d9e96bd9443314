"""Why records were rejected, in words that say what to write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl.item import EXTERNAL_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAX_SHOWN = 100
# Columns that may identify records, named at most.
_MOST_COLUMNS = 3
# What is longer is no id.
_MAX_ID = 1000


@dataclass(frozen=True)
class Reason:
    """A field and the rule that it broke: how many records did, and of one of them the value and the message."""

    field: str
    rule: str
    records: int
    value: str | None
    message: str

    @property
    def lacks_id(self) -> bool:
        """Whether the records have nothing that identifies them."""
        return (self.field, self.rule) == (EXTERNAL_ID.name, "required")

    def __str__(self) -> str:
        shown = "" if self.value is None else f" (as in {self.value[:_MAX_SHOWN]!r})"
        return f"{self.records} × {self.message}{shown}"


def told(reasons: Sequence[Reason], records: Iterable[dict[str, Any]] = ()) -> str:
    """The reasons in one line; of what lacks an id, by some of the records, what could be one."""
    lines = list(map(str, reasons))
    if any(reason.lacks_id for reason in reasons):
        lines.append(identity_advice(list(records)))
    return "; ".join(filter(None, lines))


def identity_advice(records: list[dict[str, Any]]) -> str:
    """What to declare so that records have an id: a column that has one for each, or their content."""
    unique = unique_keys(records)
    by_content = "`identity: content` (each record as it is; a changed one is another item)"
    if not unique:
        return f"declare `map: {{external_id: …}}`, or {by_content}"
    named = ", ".join(f"`{name}`" for name in unique[:_MOST_COLUMNS])
    return f"in these records {named} identified them: declare `map: {{external_id: {unique[0]}}}`, or {by_content}"


def unique_keys(records: list[dict[str, Any]]) -> list[str]:
    """The keys whose values are there in all records, and differ in all, those that are called an id first."""
    if len(records) < 2:
        return []
    keys = [key for key in records[0] if all(_may_identify(record.get(key)) for record in records)]
    unique = [key for key in keys if len({str(record[key]) for record in records}) == len(records)]
    return sorted(unique, key=lambda key: not _is_called_id(key))


def _may_identify(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and 0 < len(str(value).strip()) <= _MAX_ID


# As a word of its own, or the last one in camel case.
_CALLED_ID = re.compile(r"(?:^|[\W_]|(?<=[a-z])(?=[A-Z]))(?i:id|nr|no|key|code|sku|uuid|guid|number|nummer)\.?$")


def _is_called_id(key: str) -> bool:
    return _CALLED_ID.search(key) is not None
