"""How a record becomes an item: compiled once per source, pure.

`map` names, for each field of an item, a key of the record or a JMESPath into it. Without `map` the usual names are
recognised. What is not used goes to `metadata`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from etl import payload
from etl.declare.paths import is_true, path as compiled_path
from etl.declare.source import times_of
from etl.errors import RecordError
from etl.item import EXTERNAL_ID, TARGETS, Kind
from etl.mapping import convert
from etl.mapping.contract import Contract
from etl.mapping.getter import DOTTED, WORD, Getter, Record, compiles, getter
from etl.mapping.numbers import NumberReader
from etl.records import BadRecord, Fault, Item, Mapped, RawRecord, Reject, StagedItem, StoredRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etl.declare.source import AnySource

Converter = Callable[[Any], Any]

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

    def __init__(self, source: AnySource, max_record: int = MAX_RECORD, *, fails: bool = True) -> None:
        """Compile paths, converters and rules; the source is valid. Records of more than `max_record` bytes are bad.

        Without `fails` a record that would fail its run is rejected instead.
        """
        self._max_record = max_record
        self._map = source.map
        self._where = None if source.where is None else compiled_path(source.where).search
        self._identity = source.identity
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
        self._reads_plain_numbers = source.numbers is None
        self._contract = Contract(source.expect, times_of(source), fails=fails) if source.expect else None
        nulls = frozenset(source.nulls)
        self._converters = {field.name: _or_null(by_kind[field.kind], nulls) for field in TARGETS}
        self._plan = lru_cache(maxsize=64)(self._make_plan)

    def take(self, records: Iterator[Record | BadRecord]) -> tuple[list[RawRecord], list[BadRecord], int]:
        """Identify the next few records and put them into their canonical form; none when there are no more.

        What cannot be stored as jsonb is bad, and so is what is too large. At most one of them is large. The number is
        how many more were left out by `where`.
        """
        skipped = 0
        group: list[Record | BadRecord] = []
        texts: list[bytes] = []
        size = 0
        for record in records if self._where is None else map(self._judged, records):
            if record is None:
                skipped += 1
                if skipped >= _GROUP_RECORDS:
                    break
                continue
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
                return list(self._raw(cast("list[Record]", group), texts)), [], skipped
        found = list(map(self._take_one, group))
        return (
            [r for r in found if isinstance(r, RawRecord)],
            [r for r in found if isinstance(r, BadRecord)],
            skipped,
        )

    def _judged(self, record: Record | BadRecord) -> Record | BadRecord | None:
        """A record, None if by `where` it is none."""
        if isinstance(record, BadRecord) or self._where is None:
            return record
        try:
            return record if is_true(self._where(record)) else None
        except ValueError as error:
            return BadRecord(_shown(record), "where", "where", f"`where`: {error}")

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

    def normalize(self, records: Iterable[StoredRecord]) -> Mapped:
        """Map stored records; those that do not fit are among the rejects, with the reasons.

        Raises:
            ExpectationError: one breaks a rule for which the run is to fail.
        """
        staged: list[StagedItem] = []
        rejects: list[Reject] = []
        for record in records:
            try:
                staged.append(StagedItem(record, self._item(record)))
            except ValueError:
                rejects.append(self._reject(record))
        return Mapped(staged, rejects) if self._contract is None else self._by_contract(self._contract, staged, rejects)

    def _by_contract(self, contract: Contract, staged: list[StagedItem], rejects: list[Reject]) -> Mapped:
        """What is left of the items by the contract."""
        ids = [cast("str", one.record.external_id) for one in staged]
        kept, nulled = dict(enumerate(staged)), list[Fault]()
        for place in contract.broken(ids, [one.item for one in staged]):
            record = staged[place].record
            try:
                item, lost = contract.kept(ids[place], staged[place].item)
            except ValueError:
                del kept[place]
                rejects.append(self._reject(record))
            else:
                kept[place] = StagedItem(record, item)
                nulled += lost
        # The last of those with the same id is the one whose reasons are kept.
        rejects.sort(key=lambda reject: reject.record.raw_id)
        return Mapped(list(kept.values()), rejects, nulled=nulled)

    def _reject(self, record: StoredRecord) -> Reject:
        return Reject(record, self._whole_hash(record), list(self._faults(record)))

    def identified(self, record: StoredRecord) -> StoredRecord:
        """A record that was stored without an id, with the one that it has by this mapping; others keep theirs."""
        if record.external_id is not None:
            return record
        return replace(record, external_id=self._identify(payload.decode(record.payload), record.content_hash))

    @property
    def reads_plain_numbers(self) -> bool:
        """Whether the source does not say how it writes numbers, which may be told from its texts."""
        return self._reads_plain_numbers

    def mapped(self, contents: Iterable[Record]) -> dict[str, str]:
        """The fields of an item that these records have something for, or should have, and the path to each."""
        if self._map is not None:
            return {target: path for target, path in self._map.items() if target != EXTERNAL_ID.name}
        keys = tuple(dict.fromkeys(key for content in contents for key in content))
        return {target: path for target, path in self._paths(keys).items() if target != EXTERNAL_ID.name}

    def has(self, path: str, content: Record) -> bool:
        """Whether a path leads anywhere in a record, be it to null. Of one that computes nobody can tell."""
        if path in content:
            return True
        if not (DOTTED.fullmatch(path) or WORD.fullmatch(path)):
            return bool(compiles(path))
        value: Any = content
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True

    def _faults(self, record: StoredRecord) -> Iterator[Fault]:
        """All that is wrong with a record, its id first."""
        content = payload.decode(record.payload)
        if record.external_id is None:
            yield self._fault_of_id(content)
        plan = self._plan(tuple(content))
        fields, unread = dict[str, Any](), [] if record.external_id else [EXTERNAL_ID.name]
        for target, get, convert_value in plan.steps:
            value: Any = None
            try:
                value = get(content)
                fields[target] = convert_value(value)
            except ValueError as error:
                unread.append(target)
                yield Fault(target, "type", _cut(value), f"{target}: {error}")
        if self._contract is not None:
            item = Item(**fields, metadata=_rest(content, plan))
            yield from self._contract.faults(record.external_id, item, unread)

    def _fault_of_id(self, content: Record) -> Fault:
        name = EXTERNAL_ID.name
        if isinstance(self._identity, list):
            try:
                missing = [path for path in self._identity if getter(path, tuple(content))(content) in (None, "")]
            except ValueError as error:
                return Fault(name, "type", None, f"`identity`: {error}")
            return Fault(name, "required", None, f"the record has no {' and no '.join(missing)}, of its `identity`")
        value: Any = None
        try:
            value = self._id_of(content)
            self._converters[name](value)
        except ValueError as error:
            return Fault(name, "type", _cut(value), f"{name}: {error}")
        path = self._id_path
        looked = f"`{path}`" if path else " or ".join(f"`{usual}`" for usual in EXTERNAL_ID.usual)
        return Fault(name, "required", None, f"the record has no id at {looked}")

    def _whole_hash(self, record: StoredRecord) -> bytes:
        """A mended field must reopen the case, also if it is one that does not make a record `changed`."""
        if not self._ignored:
            return record.content_hash
        return payload.digest(payload.encode(payload.decode(record.payload)))

    def _item(self, record: StoredRecord) -> Item:
        """The item of a record; ValueError if it has no id, or a value that does not fit."""
        if record.external_id is None:
            raise ValueError("the record has no id")
        content = payload.decode(record.payload)
        plan = self._plan(tuple(content))
        fields = {target: convert(get(content)) for target, get, convert in plan.steps}
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
            return record[path] if path in record else getter(path, ())(record)
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
            (target, getter(path, keys), self._converters[target])
            for target, path in paths.items()
            if target != EXTERNAL_ID.name
        )
        used = frozenset(path for path in paths.values() if path in keys)
        dotted = tuple(tuple(path.split(".")) for path in paths.values() if path not in keys and DOTTED.fullmatch(path))
        return _Plan(steps, used, dotted, uses_all=not dotted and used.issuperset(keys))

    def _paths(self, keys: tuple[str, ...]) -> dict[str, str]:
        if self._map is not None:
            return self._map
        found = {field.name: next((n for n in field.usual if n in keys), None) for field in TARGETS}
        return {target: name for target, name in found.items() if name is not None}


def _compound(record: Record, paths: list[str]) -> str | None:
    try:
        values = [getter(path, tuple(record))(record) for path in paths]
    except ValueError:
        return None
    if any(value is None or value == "" for value in values):
        return None
    written = payload.encode(values)
    return written.decode() if len(written) <= convert.MAX_ID_BYTES else payload.digest(written).hex()


def _or_null(converter: Converter, nulls: frozenset[str]) -> Converter:
    """The same, but for the texts and numbers that mean no value."""
    if not nulls:
        return converter

    def convert_unless_null(value: Any) -> Any:
        if isinstance(value, (str, int, Decimal)) and str(value).strip() in nulls:
            return None
        return converter(value)

    return convert_unless_null


def _shown(record: Record) -> bytes:
    try:
        return repr(record).encode("utf-8", "replace")
    except RecursionError:
        return b"a record that is nested too deep to be shown"


def _cut(value: Any) -> str | None:
    try:
        return None if value is None else str(value)[:_MAX_SHOWN]
    except ValueError:
        # An integer of more digits than Python writes.
        return f"a number of {value.bit_length()} bits"


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
