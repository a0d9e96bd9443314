"""How a record becomes an item: compiled once per source, pure.

`map` names, for each field of an item, a key of the record or a JMESPath into it. Without `map` the usual names are
recognised. What is not used goes to `metadata`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from etl import payload
from etl.declare.paths import path as compiled_path
from etl.declare.source import times_of
from etl.errors import RecordError
from etl.item import EXTERNAL_ID, TARGETS, Kind
from etl.mapping import convert
from etl.mapping.numbers import NumberReader
from etl.records import BadRecord, Item, RawRecord, Reject, StagedItem, StoredRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etl.declare.source import AnySource

Record = dict[str, Any]
Getter = Callable[[Record], Any]
Converter = Callable[[Any], Any]

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_WORD = re.compile(r"[A-Za-z_]\w*")
_MAX_SHOWN = 200
# The largest record that is kept, in its canonical form: bytes.
MAX_RECORD = 4 * 1024 * 1024
# What is taken at once: few enough for a processor's cache, and for memory however large the records are.
_GROUP_BYTES = 64 * 1024
_GROUP_RECORDS = 500


@dataclass(frozen=True)
class _Plan:
    """How to map records with certain keys: a getter and a converter for each field, and which keys they use up."""

    steps: tuple[tuple[str, Getter, Converter], ...]
    used: frozenset[str]
    dotted: tuple[tuple[str, ...], ...]
    uses_all: bool


class Mapper:
    """The compiled mapping of one source."""

    def __init__(self, source: AnySource, max_record: int = MAX_RECORD) -> None:
        """Compile paths and converters; the source is valid. Records of more than `max_record` bytes are bad."""
        self._max_record = max_record
        self._map = source.map
        self._identify = self._make_identify(source.identity)
        self._ignored = frozenset(source.ignore)
        self._id_path = (source.map or {}).get(EXTERNAL_ID.name)
        by_kind: dict[Kind, Converter] = {
            Kind.IDENTIFIER: convert.identifier,
            Kind.TEXT: convert.text,
            Kind.ADDRESS: convert.address,
            Kind.NUMBER: convert.number if source.numbers is None else NumberReader(source.numbers),
            Kind.TAGS: convert.tags,
            Kind.TIME: times_of(source),
        }
        nulls = frozenset(source.nulls)
        self._converters = {field.name: _or_null(by_kind[field.kind], nulls) for field in TARGETS}
        self._plan = lru_cache(maxsize=64)(self._make_plan)

    def take(self, records: Iterator[Record | BadRecord]) -> tuple[list[RawRecord], list[BadRecord]]:
        """Identify the next few records and put them into their canonical form; none when there are no more.

        What cannot be stored as jsonb is bad, and so is what is too large. At most one of them is large.
        """
        group: list[Record | BadRecord] = []
        texts: list[bytes] = []
        size = 0
        for record in records:
            group.append(record)
            try:
                text = b"" if isinstance(record, BadRecord) else payload.write(record)
            except RecordError:
                text = b""
            if len(text) > self._max_record:
                text = b""
            texts.append(text)
            size += len(text)
            if not text or size >= _GROUP_BYTES or len(group) >= _GROUP_RECORDS:
                break
        if b"" not in texts and payload.are_harmless(texts):
            with suppress(RecordError):
                return list(self._raw(cast("list[Record]", group), texts)), []
        found = list(map(self._take_one, group))
        return [r for r in found if isinstance(r, RawRecord)], [r for r in found if isinstance(r, BadRecord)]

    def _take_one(self, record: Record | BadRecord) -> RawRecord | BadRecord:
        if isinstance(record, BadRecord):
            return record
        try:
            text = payload.write(record)
            if len(text) > self._max_record:
                return self._too_large(text)
            return next(self._raw([record], [payload.encode(record)]))
        except RecordError as error:
            return BadRecord(_shown(record), error.field, error.rule, error.message)

    def _too_large(self, text: bytes) -> BadRecord:
        return BadRecord(
            text, "", "too_large", f"the record has {len(text)} bytes, more than MAX_RECORD = {self._max_record}"
        )

    def _raw(self, records: list[Record], texts: list[bytes]) -> Iterator[RawRecord]:
        ignored = self._ignored
        contents = [payload.write(payload.without(r, ignored)) for r in records] if ignored else texts
        hashes = list(map(payload.digest, contents))
        return map(RawRecord, map(self._identify, records, hashes), texts, hashes)

    def normalize(self, records: Iterable[StoredRecord]) -> tuple[list[StagedItem], list[Reject]]:
        """Map stored records; those that do not fit come back as rejects, with the reason."""
        staged: list[StagedItem] = []
        rejects: list[Reject] = []
        for record in records:
            try:
                staged.append(StagedItem(record, self._item(record)))
            except RecordError as error:
                rejects.append(self._reject(record, error))
        return staged, rejects

    def _reject(self, record: StoredRecord, error: RecordError) -> Reject:
        shown = None if error.value is None else str(error.value)[:_MAX_SHOWN]
        return Reject(record, self._whole_hash(record), error.field, error.rule, shown, error.message)

    def _whole_hash(self, record: StoredRecord) -> bytes:
        """A mended field must reopen the case, also if it is one that does not make a record `changed`."""
        if not self._ignored:
            return record.content_hash
        return payload.digest(payload.encode(payload.decode(record.payload)))

    def _item(self, record: StoredRecord) -> Item:
        if record.external_id is None:
            raise RecordError("external_id", "required", None, "the record has no id")
        content = payload.decode(record.payload)
        plan = self._plan(tuple(content))
        try:
            fields = {target: convert(get(content)) for target, get, convert in plan.steps}
        except ValueError:
            fields = {step[0]: _convert(step, content) for step in plan.steps}
        return Item(**fields, metadata=_rest(content, plan))

    def _identified(self, record: Record, _: bytes) -> str | None:
        """The external id, or None when the record has none or one that does not fit."""
        try:
            return cast("str | None", self._converters[EXTERNAL_ID.name](self._id_of(record)))
        except ValueError:
            return None

    def _id_of(self, record: Record) -> Any:
        path = self._id_path
        if path is not None:
            return record[path] if path in record else _getter(path, ())(record)
        name = next((name for name in EXTERNAL_ID.usual if name in record), None)
        return None if name is None else record[name]

    def _make_identify(self, identity: str | list[str]) -> Callable[[Record, bytes], str | None]:
        """What tells the id of a record, from the record or from its content hash."""
        if identity == "content":
            return lambda _, content_hash: content_hash.hex()
        if isinstance(identity, list):
            return lambda record, _: _compound(record, identity)
        return self._identified

    def _make_plan(self, keys: tuple[str, ...]) -> _Plan:
        """For records with these keys."""
        paths = self._paths(keys)
        steps = tuple(
            (target, _getter(path, keys), self._converters[target])
            for target, path in paths.items()
            if target != EXTERNAL_ID.name
        )
        used = frozenset(path for path in paths.values() if path in keys)
        dotted = tuple(
            tuple(path.split(".")) for path in paths.values() if path not in keys and _DOTTED.fullmatch(path)
        )
        return _Plan(steps, used, dotted, uses_all=not dotted and used.issuperset(keys))

    def _paths(self, keys: tuple[str, ...]) -> dict[str, str]:
        if self._map is not None:
            return self._map
        found = {field.name: next((n for n in field.usual if n in keys), None) for field in TARGETS}
        return {target: name for target, name in found.items() if name is not None}


def _compound(record: Record, paths: list[str]) -> str | None:
    values = [_getter(path, tuple(record))(record) for path in paths]
    if any(value is None or value == "" for value in values):
        return None
    written = payload.encode(values)
    return written.decode() if len(written) <= convert.MAX_ID_BYTES else payload.digest(written).hex()


def _getter(path: str, keys: tuple[str, ...]) -> Getter:
    """An exact key of the record wins, else the path is JMESPath."""
    if path in keys:
        return itemgetter(path)
    if _WORD.fullmatch(path):
        return _absent
    try:
        search = compiled_path(path).search
        # jsonb has an order of its own, which these can tell.
        return search if {"*", "("}.isdisjoint(path) else lambda record: search(_sorted(record))
    except ValueError:
        # The name of a key that this record lacks, such as `dc:title`.
        return _absent


def _or_null(converter: Converter, nulls: frozenset[str]) -> Converter:
    """The same, but for the texts and numbers that mean no value."""
    if not nulls:
        return converter

    def convert_unless_null(value: Any) -> Any:
        if isinstance(value, (str, int, Decimal)) and str(value).strip() in nulls:
            return None
        return converter(value)

    return convert_unless_null


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return list(map(_sorted, value)) if isinstance(value, list) else value


def _shown(record: Record) -> bytes:
    try:
        return repr(record).encode("utf-8", "replace")
    except RecursionError:
        return b"a record that is nested too deep to be shown"


def _absent(_: Record) -> None:
    return None


def _convert(step: tuple[str, Getter, Converter], content: Record) -> Any:
    """One step that names its field when the value does not fit."""
    target, get, convert_value = step
    value: Any = None
    try:
        value = get(content)
        return convert_value(value)
    except ValueError as error:
        raise RecordError(target, "type", value, f"{target}: {error}") from error


def _rest(content: Record, plan: _Plan) -> Record:
    """What the mapping did not use."""
    if plan.uses_all:
        return {}
    rest = {key: value for key, value in content.items() if key not in plan.used}
    for path in plan.dotted:
        _drop(rest, path)
    return rest


def _drop(rest: Record, path: tuple[str, ...]) -> None:
    """Leave out one nested value, without touching the original."""
    head, *tail = path
    child = rest.get(head)
    if not tail:
        rest.pop(head, None)
    elif isinstance(child, dict):
        copy = dict(child)
        _drop(copy, tuple(tail))
        rest[head] = copy
