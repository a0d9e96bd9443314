"""What a source is expected to give: rules on the fields of its items, and what becomes of records that break them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal

import re2
from msgspec import Meta

from etl.declare.model import Model, Scalar
from etl.item import TARGETS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.times.moment import Moment

# What a pattern may take, in bytes of its program; a larger one is refused.
MAX_PATTERN = 1 << 20
METADATA = "metadata."
KINDS = {field.name: field.kind for field in TARGETS}
RULES = ("required", "type", "min", "max", "enum", "pattern", "max_length")
Rule = Literal["required", "type", "min", "max", "enum", "pattern", "max_length"]
# `null` without quotes is YAML's own.
Action = Literal["reject", "null", "fail"] | None
# Which rules a kind of field can have, beside `required`.
_POSSIBLE: dict[Kind, frozenset[str]] = {
    **dict.fromkeys((Kind.IDENTIFIER, Kind.TEXT, Kind.ADDRESS), frozenset({"enum", "pattern", "max_length"})),
    Kind.NUMBER: frozenset({"min", "max", "enum"}),
    Kind.TIME: frozenset({"min", "max"}),
    Kind.TAGS: frozenset({"enum", "max_length"}),
}


class Expectation(Model, frozen=True):
    """Rules on one field. A field without a value breaks `required` alone.

    `action` says what becomes of a record that breaks one: it goes to quarantine, loses the value, or fails the run.
    `unique` is no rule on a record: values that stand in several items are warned of.
    """

    required: bool = False
    type: Literal["text", "number", "boolean", "list", "object"] | None = None
    min: float | int | str | None = None
    max: float | int | str | None = None
    enum: list[Scalar] | None = None
    pattern: str | None = None
    max_length: Annotated[int, Meta(ge=1)] | None = None
    unique: bool = False
    action: Action = "reject"
    actions: dict[Rule, Action] = {}  # noqa: RUF012 -- msgspec copies it

    @property
    def given(self) -> dict[str, Any]:
        """The rules that there are, and what they say."""
        rules = {name: getattr(self, name) for name in RULES}
        return {name: value for name, value in rules.items() if value is not None and value is not False}

    def action_of(self, rule: str) -> str:
        """What becomes of a record that breaks a rule."""
        return self.actions.get(rule, self.action) or "null"  # type: ignore[call-overload]


class RejectLimit(Model, frozen=True):
    """How many rejected records a run may have."""

    records: Annotated[int, Meta(ge=0)]


def check_expectations(expect: dict[str, Expectation], moment: Moment) -> None:
    """Refuse what no field can fulfil, by name; `moment` reads the limits of times.

    Raises:
        ValueError: names the key.
    """
    for name, expectation in expect.items():
        key = f"`expect.{name}"
        if name not in KINDS and not (name.startswith(METADATA) and len(name) > len(METADATA)):
            raise ValueError(f"{key}` is no field of an item; there are {', '.join(KINDS)} and {METADATA}KEY")
        _check_rules(key, KINDS.get(name), expectation)
        _check_range(key, expectation, moment if KINDS.get(name) is Kind.TIME else number)
        _check_actions(key, name, expectation)


def _check_rules(key: str, kind: Kind | None, expectation: Expectation) -> None:
    given = expectation.given
    if not given and not expectation.unique:
        raise ValueError(f"{key}` has no rule; there are {', '.join(RULES)} and unique")
    for rule in given:
        if kind is not None and rule != "required" and rule not in _POSSIBLE[kind]:
            raise ValueError(
                f"{key}.{rule}` is no rule for it; there are required, {', '.join(sorted(_POSSIBLE[kind]))}"
            )
    if expectation.enum == []:
        raise ValueError(f"{key}.enum` is an empty list")
    for choice in (expectation.enum or ()) if kind is Kind.NUMBER else ():
        _read(f"{key}.enum`", choice, number)
    if expectation.pattern is not None:
        compiled_pattern(expectation.pattern, f"{key}.pattern`")


def _check_range(key: str, expectation: Expectation, read: Callable[[Any], Any]) -> None:
    given = ((rule, getattr(expectation, rule)) for rule in ("min", "max"))
    limits = [_read(f"{key}.{rule}`", value, read) for rule, value in given if value is not None]
    if limits != sorted(limits):
        raise ValueError(f"{key}.min` is above `max`")


def _check_actions(key: str, name: str, expectation: Expectation) -> None:
    for rule in expectation.actions:
        if rule not in expectation.given:
            raise ValueError(f"{key}.actions.{rule}`: there is no such rule")
    nulled = [rule for rule in expectation.given if expectation.action_of(rule) == "null"]
    if nulled and name == "external_id":
        raise ValueError(f"{key}.action`: without its id a record is none; there are reject and fail")
    if "required" in nulled:
        raise ValueError(
            f"{key}.action`: a value that is required cannot be left out; say what holds in `actions.required`"
        )


def _read(key: str, value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except (ValueError, InvalidOperation) as error:
        raise ValueError(f"{key}: {value!r} is not what it is compared with") from error


def number(value: float | str) -> Decimal:
    """A limit as it is written.

    Raises:
        ValueError, InvalidOperation: it is no number, or one that nothing can be compared with.
    """
    found = Decimal(str(value))
    if isinstance(value, bool) or not found.is_finite():
        raise ValueError("not a finite number")
    return found


def compiled_pattern(pattern: str, key: str) -> Any:
    """The pattern, compiled.

    Raises:
        ValueError: it is none, or too large.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PATTERN
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"{key} is no pattern: {reason}") from error


def quick_pattern(pattern: str) -> Any:
    """Says quickly that a valid pattern is found in a text; where it does not say so, it may be found all the same."""
    found = re2.Set.SearchSet()
    found.Add(pattern)
    found.Compile()
    return found.Match


_ROWS = re.compile(r"(\d{1,12})?\.\.(\d{1,12})?")


def rows_of(text: str) -> tuple[int | None, int | None]:
    """The least and the greatest number of records in `900..1100`, `900..` or `..1100`.

    Raises:
        ValueError: it is none of these.
    """
    match = _ROWS.fullmatch(text)
    if match is None or match[0] == "..":
        raise ValueError(f"`expect_rows`: {text!r} is no range such as 900..1100, 900.. or ..1100")
    least, most = (None if part is None else int(part) for part in match.groups())
    if least is not None and most is not None and least > most:
        raise ValueError(f"`expect_rows`: the range {text} is upside down")
    return least, most
