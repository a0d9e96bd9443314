"""What a replay would do: a diff, added up over its rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from msgspec.structs import replace

# Samples of each kind, and characters of a value in them.
MOST_SAMPLES = 5
SHOWN = 200
# Slices in a row that may get nowhere.
MAX_ATTEMPTS = 3


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record that would become something else: fields that differ, before and after; or what is wrong with it."""

    external_id: str | None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    field: str | None = None
    rule: str | None = None
    value: str | None = None
    message: str | None = None


class Diff(msgspec.Struct, frozen=True, omit_defaults=True):
    """Records looked at, and what they would do to what is served.

    `mended` are in quarantine and would fit, `newly_rejected` are not and would not; `still_rejected` are and stay.
    `fields` counts the changed items by field, `causes` the rejected records by field and rule.
    """

    records: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    mended: int = 0
    newly_rejected: int = 0
    still_rejected: int = 0
    fields: dict[str, int] = {}
    causes: dict[str, int] = {}
    samples: dict[str, list[Sample]] = {}

    def plus(self, other: Diff) -> Diff:
        """Both together; the first samples of each kind stay."""
        numbers = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__struct_fields__
            if isinstance(getattr(self, name), int)
        }
        kinds = dict.fromkeys((*self.samples, *other.samples))
        return replace(
            self,
            **numbers,
            fields=dict(Counter(self.fields) + Counter(other.fields)),
            causes=dict(Counter(self.causes) + Counter(other.causes)),
            samples={
                kind: [*self.samples.get(kind, []), *other.samples.get(kind, [])][:MOST_SAMPLES] for kind in kinds
            },
        )


def changed_sample(external_id: str, before: dict[str, Any], after: dict[str, Any]) -> Sample:
    """The fields of an item that would change."""
    keys = [key for key in after if before.get(key) != after[key]]
    return Sample(external_id, {key: _cut(before.get(key)) for key in keys}, {key: _cut(after[key]) for key in keys})


def added_sample(external_id: str, after: dict[str, Any]) -> Sample:
    """The fields of an item that would be new."""
    return Sample(external_id, after={key: _cut(value) for key, value in after.items() if value is not None})


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:SHOWN]
    if isinstance(value, dict | list):
        text = msgspec.json.encode(value).decode()
        return value if len(text) <= SHOWN else text[:SHOWN]
    return value
