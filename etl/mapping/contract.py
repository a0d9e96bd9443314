"""A source's contract applied to its items: quick where all is as expected, and exact where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import repeat
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from etl.declare.expect import KINDS, METADATA, compiled_pattern, number, quick_pattern
from etl.errors import ExpectationError
from etl.item import EXTERNAL_ID, Kind
from etl.records import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from etl.declare.expect import Expectation
    from etl.records import Item
    from etl.times.moment import Moment

    Check = Callable[[Any], bool]

_TYPES: dict[str, type | tuple[type, ...]] = {"text": str, "boolean": bool, "list": list, "object": dict}
_MAX_SHOWN = 200


@dataclass(frozen=True)
class _Rule:
    """A rule, what it says, whether a value keeps it, and, more quickly, whether several do.

    `all_keep` may take those that keep it for some that do not, and never the other way round.
    """

    name: str
    limit: Any
    check: Check
    all_keep: Callable[[list[Any]], bool]


@dataclass(frozen=True)
class _Field:
    """A field with its rules."""

    name: str
    get: Callable[[Item], Any]
    is_required: bool
    rules: tuple[_Rule, ...]
    expectation: Expectation

    def all_keep(self, values: list[Any]) -> bool:
        """Whether all values keep all rules, for certain."""
        # Told by `is`: to compare a number with None takes as long as to compare it with its limit.
        lacks = any(map(is_, values, repeat(None)))
        present = [value for value in values if value is not None] if lacks else values
        if self.is_required and lacks:
            return False
        return not present or all(rule.all_keep(present) for rule in self.rules)

    def is_broken(self, value: Any) -> bool:
        """Whether a value breaks any rule."""
        if value is None:
            return self.is_required
        return not all(rule.check(value) for rule in self.rules)


class Contract:
    """The compiled contract of one source."""

    def __init__(self, expect: dict[str, Expectation], moment: Moment, *, fails: bool = True) -> None:
        """`moment` reads the limits of times; without `fails` what would fail the run is a rejected record."""
        self._fields = [_field(name, expectation, moment) for name, expectation in expect.items()]
        self._fails = fails

    def broken(self, ids: list[str], items: list[Item]) -> list[int]:
        """The places of the items that break a rule; field by field, as that is the quickest where none does."""
        found = set[int]()
        for field in self._fields:
            values = ids if field.name == EXTERNAL_ID.name else list(map(field.get, items))
            if not field.all_keep(values):
                found.update(place for place, value in enumerate(values) if field.is_broken(value))
        return sorted(found)

    def kept(self, external_id: str, item: Item) -> tuple[Item, list[Fault]]:
        """An item that breaks a rule as it is to be served, and the rules for which it lost a value.

        Raises:
            ValueError: the record is to be rejected.
            ExpectationError: the run is to fail.
        """
        found = [
            (field.expectation.action_of(fault.rule), fault) for field, fault in self._broken(external_id, item, ())
        ]
        self._fail(found)
        nulled = [fault for action, fault in found if action == "null"]
        if len(nulled) < len(found):
            raise ValueError("the record breaks a rule")
        for fault in nulled:
            item = _without(item, fault.field)
        return item, nulled

    def _fail(self, found: Sequence[tuple[str, Fault]]) -> None:
        for action, fault in found:
            if action == "fail" and self._fails:
                told = f"; it is {fault.value!r}" if fault.value is not None else ""
                raise ExpectationError(f"a record breaks what is expected of {fault.message}{told}")

    def faults(self, external_id: str | None, item: Item, unread: Sequence[str]) -> list[Fault]:
        """The rules for which a record is rejected, but for those of fields that could not be read.

        Raises:
            ExpectationError: the run is to fail.
        """
        found = [
            (field.expectation.action_of(fault.rule), fault) for field, fault in self._broken(external_id, item, unread)
        ]
        self._fail(found)
        return [fault for action, fault in found if action != "null"]

    def _broken(self, external_id: str | None, item: Item, unread: Sequence[str]) -> Iterator[tuple[_Field, Fault]]:
        for field in self._fields:
            if field.name not in unread:
                value = external_id if field.name == EXTERNAL_ID.name else field.get(item)
                yield from ((field, fault) for fault in _faults(field, value))


def _faults(field: _Field, value: Any) -> Iterator[Fault]:
    if value is None:
        if field.is_required:
            yield Fault(field.name, "required", None, f"{field.name}: expected a value")
        return
    shown = str(value)[:_MAX_SHOWN]
    for rule in field.rules:
        if not rule.check(value):
            yield Fault(field.name, rule.name, shown, f"{field.name}: {_expected(rule.name, rule.limit)}")


def _expected(rule: str, limit: Any) -> str:
    said = {
        "type": f"expected {limit}",
        "min": f"expected at least {limit}",
        "max": f"expected at most {limit}",
        "pattern": f"expected what matches {limit}",
        "max_length": f"expected a length of at most {limit}",
    }
    if rule == "enum":
        choices = ", ".join(map(str, limit[:20]))
        return f"expected one of {choices}{', …' if len(limit) > 20 else ''}"
    return said[rule]


def _without(item: Item, name: str) -> Item:
    if not name.startswith(METADATA):
        return replace(item, **{name: None})
    key = name.removeprefix(METADATA)
    return replace(item, metadata={other: value for other, value in item.metadata.items() if other != key})


def _field(name: str, expectation: Expectation, moment: Moment) -> _Field:
    kind = KINDS.get(name)
    read = moment if kind is Kind.TIME else number
    rules = [_rule(rule, limit, kind, read) for rule, limit in expectation.given.items() if rule != "required"]
    return _Field(name, _getter(name), expectation.required, tuple(rules), expectation)


def _getter(name: str) -> Callable[[Item], Any]:
    if not name.startswith(METADATA):
        return attrgetter(name)
    key = name.removeprefix(METADATA)
    return lambda item: item.metadata.get(key)


def _rule(rule: str, limit: Any, kind: Kind | None, read: Callable[[Any], Any]) -> _Rule:
    """What the mapping does not use may be of any type; it keeps no rule on values of another one."""
    made = _MAKERS[rule](limit, kind, read)
    if kind is not None:
        return made
    fits = _FITS.get(rule, lambda _: True)
    check = made.check
    return _each(rule, limit, lambda value: fits(value) and check(value))


def _each(rule: str, limit: Any, check: Check) -> _Rule:
    return _Rule(rule, limit, check, lambda values: all(map(check, values)))


def _type(limit: str, *_: Any) -> _Rule:
    return _each("type", limit, _is_number if limit == "number" else lambda value: isinstance(value, _TYPES[limit]))


def _min(limit: Any, _: Kind | None, read: Callable[[Any], Any]) -> _Rule:
    least = read(limit)
    return _Rule("min", limit, lambda value: value >= least, lambda values: min(values) >= least)


def _max(limit: Any, _: Kind | None, read: Callable[[Any], Any]) -> _Rule:
    most = read(limit)
    return _Rule("max", limit, lambda value: value <= most, lambda values: max(values) <= most)


def _enum(choices: list[Any], kind: Kind | None, _: Any) -> _Rule:
    known = frozenset(map(number if kind is Kind.NUMBER else str, choices))
    if kind is Kind.TAGS:
        return _each("enum", choices, known.issuperset)
    if kind is None:
        free = frozenset(map(_plain, choices))
        return _each("enum", choices, lambda value: _plain(value) in free)
    return _Rule("enum", choices, known.__contains__, known.issuperset)


def _pattern(pattern: str, *_: Any) -> _Rule:
    search, has = compiled_pattern(pattern, "`pattern`").search, quick_pattern(pattern)
    return _Rule(
        "pattern", pattern, lambda value: search(value) is not None, lambda values: all(map(has, dict.fromkeys(values)))
    )


def _max_length(most: int, *_: Any) -> _Rule:
    return _Rule("max_length", most, lambda value: len(value) <= most, lambda values: max(map(len, values)) <= most)


def _plain(value: Any) -> tuple[str, Any]:
    """A value by which equal ones are known, however they are written: 10 is 10.0, and neither "10" nor true."""
    if _is_number(value):
        return "number", Decimal(str(value))
    return type(value).__name__, value if isinstance(value, str | bool) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


_MAKERS: dict[str, Callable[..., _Rule]] = {
    "type": _type,
    "min": _min,
    "max": _max,
    "enum": _enum,
    "pattern": _pattern,
    "max_length": _max_length,
}
_FITS: dict[str, Check] = {
    **dict.fromkeys(("min", "max"), _is_number),
    "pattern": lambda value: isinstance(value, str),
    "max_length": lambda value: isinstance(value, str | list | dict),
}
