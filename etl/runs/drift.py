"""What has changed its shape: the fields of a source's records, by what they have been like before."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from etl.item import TARGETS
from etl.records import Fault, Observed, Reject, Sight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from etl.records import Mapped

# Of fewer records nothing is said.
MIN_RECORDS = 20
# A share that rises by so much has changed.
_MUCH = 0.5
# The share of records that have what nearly all have.
_NEARLY_ALL = 0.9
# What was seen before fades, so that a change is soon usual: of so many records at most is remembered.
_MEMORY = 1000.0
# Fields of records that are remembered, those seen most often.
_MOST_KEYS = 500
# A name that resembles the missing one at least so much is suggested.
_ALIKE = 0.5
# What is counted beside values: that a field was not there, and that a number showed its point to be one of decimals.
_NO_VALUES = frozenset({"missing", "decimal"})


@dataclass(frozen=True)
class Known:
    """What a field has been like: of `seen` records so many had it, by kind. `drift` are the warnings that stand."""

    seen: float
    kinds: Mapping[str, float]
    sample: str | None = None
    drift: Mapping[str, Any] | None = None

    def share(self, kind: str | None = None) -> float:
        """How many of the records had it, or of those that had it were of a kind."""
        held = sum(count for name, count in self.kinds.items() if name not in _NO_VALUES)
        if kind is None:
            return held / self.seen if self.seen else 0.0
        return self.kinds.get(kind, 0.0) / held if held else 0.0


@dataclass(frozen=True)
class Finding:
    """A field that is not as it was: what of it, how it was and is, and what to do."""

    field: str
    change: str
    old: str
    new: str
    sample: str | None = None
    suggestion: str | None = None
    # Whether it stands until the field is as before, or is mapped otherwise.
    lasts: bool = False

    @property
    def message(self) -> str:
        """In words."""
        shown = f", such as {self.sample!r}" if self.sample else ""
        advice = f"; {self.suggestion}" if self.suggestion else ""
        return f"{self.field}: {self.change}: {self.old} before, now {self.new}{shown}{advice}"


@dataclass
class Fields:
    """The fields of a source, of its items and of its records, as they are remembered."""

    items: dict[str, Known] = field(default_factory=dict)
    keys: dict[str, Known] = field(default_factory=dict)


class Policy(StrEnum):
    """What becomes of a batch whose records are not as they were, beside that it is told."""

    REPORT = "report"
    QUARANTINE = "quarantine"
    FAIL = "fail"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Policy:
        """The one that a source declares."""
        return cls(document.get("drift", cls.REPORT))


def quarantined(mapped: Mapped, findings: list[Finding]) -> Mapped:
    """A batch that is not as those before: none of its records becomes an item, until somebody has looked at it."""
    faults = [Fault(one.field, "drift", one.sample, one.message) for one in findings]
    rejects = [Reject(item.record, item.record.content_hash, faults) for item in mapped.staged]
    return replace(mapped, staged=[], rejects=[*mapped.rejects, *rejects])


def judge(observed: Observed, before: Fields, declared: Mapping[str, str]) -> list[Finding]:
    """What is not as it was; `declared` is what the source maps by name."""
    found = list(_forms(observed, before))
    if observed.records >= MIN_RECORDS:
        new = [name for name in observed.keys if name not in before.keys]
        found += _items(observed, before, declared, new)
        found += _keys(observed, before)
    return found


def holding(observed: Observed, before: Fields, declared: Mapping[str, str]) -> list[Finding]:
    """Of what is not as it was that which may keep records from being loaded.

    Of a field of an item nearly all records must have had it: an optional one is not in every batch. How numbers are
    written is a question, and no change.
    """
    return [one for one in judge(observed, before, declared) if one.change != _FORM and _was_usual(one, before)]


def _was_usual(finding: Finding, before: Fields) -> bool:
    if finding.change not in {_ABSENT, _NULLS}:
        return True
    known = before.items.get(finding.field)
    return known is not None and known.seen >= MIN_RECORDS and known.share() >= _NEARLY_ALL


def remembered(observed: Observed, before: Fields, findings: list[Finding]) -> Fields:
    """What is remembered from now on. A field whose share has changed is known by its new share alone."""
    changed = {(one.field, one.change) for one in findings}
    items = dict(before.items)
    for name, sight in observed.items.items():
        known = before.items.get(name)
        drift = next((one for one in findings if one.field == name and one.lasts), None)
        told = {**_standing(known), **({"number_form": True} if (name, _FORM) in changed else {})}
        fresh = None if (name, _NULLS) in changed else known
        kinds = {**sight.kinds, **({"decimal": 1} if observed.forms.get(name) == "" else {})}
        items[name] = _blend(Sight(kinds, sight.sample), observed.sampled_items, fresh, told | _lasting(drift))
    keys: dict[str, Known] = {}
    for name in {*observed.keys, *before.keys}:
        sight = observed.keys.get(name, Sight())
        fresh = None if (name, _TYPE) in changed else before.keys.get(name)
        keys[name] = _blend(sight, observed.sampled, fresh, {})
    return Fields(items, dict(sorted(keys.items(), key=lambda one: -sum(one[1].kinds.values()))[:_MOST_KEYS]))


# Names that a field is looked for by where nothing is mapped.
_USUAL = {field.name: field.usual for field in TARGETS}
_ABSENT, _NULLS, _NEW, _TYPE, _FORM = "not there", "mostly empty", "new", "of another type", "number form"


def _items(observed: Observed, before: Fields, declared: Mapping[str, str], new: list[str]) -> Iterator[Finding]:
    for name, sight in observed.items.items():
        known, path = before.items.get(name), sight.path or name
        held = sight.kinds.get("value", 0)
        if not held and sight.kinds.get("missing") and (name in declared or _was_held(known)):
            suggestion = _suggestion(name, path, observed, new, declared)
            old = f"{known.share():.0%} had it" if known else "never seen"
            yield Finding(name, _ABSENT, old, f"0 of {observed.records} have `{path}`", None, suggestion, lasts=True)
        elif not observed.sampled_items:
            # None of the records became an item: of these nobody knows.
            continue
        elif known and known.seen >= MIN_RECORDS and known.share() - held / max(observed.sampled_items, 1) >= _MUCH:
            now = f"{held / max(observed.sampled_items, 1):.0%} have a value"
            yield Finding(
                name,
                _NULLS,
                f"{known.share():.0%} had a value",
                now,
                None,
                _suggestion(name, path, observed, new, declared),
                lasts=False,
            )


def _keys(observed: Observed, before: Fields) -> Iterator[Finding]:
    for name, sight in observed.keys.items():
        known = before.keys.get(name)
        held = sum(sight.kinds.values())
        if known is None:
            if before.keys and held >= _MUCH * observed.sampled:
                yield Finding(name, _NEW, "never seen", f"{held:g} of {observed.sampled} have it", sight.sample)
            continue
        kind = max(sight.kinds, key=lambda one: sight.kinds[one], default=None)
        if kind is None or held < MIN_RECORDS / 2 or known.seen * known.share() < MIN_RECORDS / 2:
            continue
        if sight.kinds[kind] / held - known.share(kind) >= _MUCH:
            was = max(known.kinds, key=lambda one: known.kinds[one])
            yield Finding(name, _TYPE, was, kind, sight.sample)


def _forms(observed: Observed, before: Fields) -> Iterator[Finding]:
    """A column of numbers that all may be others, if nothing has shown otherwise, and it was not told before."""
    for name, sample in observed.forms.items():
        known = before.items.get(name)
        if not sample or (known and ("decimal" in known.kinds or (known.drift or {}).get("number_form"))):
            continue
        suggestion = (
            'if the point separates thousands, declare `numbers: {decimal: ",", thousands: "."}`, '
            'else `numbers: {decimal: "."}`'
        )
        yield Finding(name, _FORM, "three digits after each point", "read as decimals", sample, suggestion)


def _was_held(known: Known | None) -> bool:
    return known is not None and known.seen >= MIN_RECORDS and known.share() >= _MUCH


def _suggestion(target: str, path: str, observed: Observed, new: list[str], declared: Mapping[str, str]) -> str | None:
    """The key that the missing one may be called now."""
    wanted = path.rpartition(".")[2].lower()
    used = set(declared.values())
    free = [name for name in (new or observed.keys) if name not in used]
    usual = next((name for name in free if name.lower() in _USUAL.get(target, ())), None)
    if usual is not None:
        return f"declare `map: {{{target}: {usual}}}`"
    likeness = {name: SequenceMatcher(None, wanted, name.lower()).ratio() for name in free}
    best = max(free, key=lambda name: likeness[name], default=None)
    if best is None or likeness[best] < _ALIKE:
        return f"see what the records have, and declare `map: {{{target}: …}}`"
    return f"declare `map: {{{target}: {best}}}`"


def _standing(known: Known | None) -> dict[str, Any]:
    told = known.drift if known and known.drift else {}
    return {"number_form": True} if told.get("number_form") else {}


def _lasting(finding: Finding | None) -> dict[str, Any]:
    return {} if finding is None else {"message": finding.message}


def _blend(sight: Sight, sampled: int, known: Known | None, drift: dict[str, Any]) -> Known:
    if known is None:
        return Known(sampled, sight.kinds, sight.sample, drift or None)
    fade = min(1.0, _MEMORY / known.seen) if known.seen else 1.0
    kinds = {name: known.kinds.get(name, 0) * fade + sight.kinds.get(name, 0) for name in {*known.kinds, *sight.kinds}}
    return Known(known.seen * fade + sampled, kinds, sight.sample or known.sample, drift or None)
