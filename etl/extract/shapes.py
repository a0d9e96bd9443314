"""Records as APIs write them, other than as a list of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl.errors import FormatError
from etl.files.header import column_names

if TYPE_CHECKING:
    from etl.declare.source import ApiSource


def is_list_of_objects(source: ApiSource) -> bool:
    """Whether nothing else is declared."""
    return not (source.columns or source.header or source.key_as or source.columnar or source.single)


def shaped(found: Any, source: ApiSource) -> Any:
    """What `records` leads to as a list, if it has the declared shape; else as it is.

    Raises:
        FormatError: it has another shape than declared.
    """
    if found is None or is_list_of_objects(source):
        return found
    if source.single:
        return [_expect(found, dict, "`single`: one object")]
    if source.key_as is not None:
        return _keyed(_expect(found, dict, "`key_as`: an object of records"), source.key_as)
    if source.columnar:
        return _transposed(_expect(found, dict, "`columnar`: an object of lists"))
    return _rows(_expect(found, list, "a list of rows"), source.columns)


def _expect(found: Any, kind: type, meaning: str) -> Any:
    if not isinstance(found, kind):
        raise FormatError(f"expected {meaning}, found a {type(found).__name__}", code="no_records")
    return found


def _keyed(found: dict[str, Any], name: str) -> list[Any]:
    """The objects of an object, each with its key."""
    records = {key: value if isinstance(value, dict) else {"value": value} for key, value in found.items()}
    if any(name in record for record in records.values()):
        raise FormatError(f"`key_as`: the records have a `{name}` already; choose another name", code="no_records")
    return [{**record, name: key} for key, record in records.items()]


def _transposed(columns: dict[str, Any]) -> list[Any]:
    """Lists of values by the name of their column, as records."""
    lists = [_expect(values, list, f"`columnar`: a list at `{name}`") for name, values in columns.items()]
    lengths = {len(values) for values in lists}
    if len(lengths) > 1:
        raise FormatError(f"`columnar`: lists of {sorted(lengths)} values, which make no records", code="no_records")
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def _rows(rows: list[Any], columns: list[str] | None) -> list[Any]:
    """Lists of values as records; without columns the first one has the names. One of another length stays as it is."""
    if columns is None:
        if not rows:
            return []
        names = _expect(rows[0], list, "`header`: a list of names")
        columns, rows = column_names(["" if name is None else str(name) for name in names]), rows[1:]
    width = len(columns)
    return [
        dict(zip(columns, row, strict=True)) if isinstance(row, list) and len(row) == width else row for row in rows
    ]
