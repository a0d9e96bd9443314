"""Items as a Parquet file, made as it is sent. What makes it is installed beside the service: `pip install pyarrow`."""

from __future__ import annotations

import importlib
import io
import sys
from typing import TYPE_CHECKING, Any

from db.queries.exports import is_number, is_time
from etl.errors import NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from db.queries.exports import Range

# Rows that are written together: a reader may skip what it does not look for by such groups.
GROUP = 20_000


def parquet(parts: Iterator[Range], columns: Sequence[str]) -> Iterator[tuple[bytes, int]]:
    """The file in pieces, each with how many items are in it.

    Raises:
        NotInstalledError: pyarrow is not there.
    """
    arrow = check_installed()
    schema = arrow.schema([(name, _type(arrow, name)) for name in columns])
    return _written(arrow, schema, parts)


def check_installed() -> Any:
    """What makes the file.

    Raises:
        NotInstalledError: it is not there.
    """
    try:
        for part in ("pyarrow.csv", "pyarrow.parquet"):
            importlib.import_module(part)
    except ImportError as error:
        raise NotInstalledError("Parquet needs pyarrow, which is not installed: pip install pyarrow") from error
    return sys.modules["pyarrow"]


def _type(arrow: Any, name: str) -> Any:
    if name == "id":
        return arrow.int64()
    if is_time(name):
        return arrow.timestamp("us", tz="UTC")
    return arrow.float64() if is_number(name) else arrow.string()


def _written(arrow: Any, schema: Any, parts: Iterator[Range]) -> Iterator[tuple[bytes, int]]:
    sink = _Sink()
    with arrow.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        waiting, rows = list[Any](), 0
        for part in filter(_has_items, parts):
            waiting.append(_table(arrow, schema, part.text))
            rows += part.items
            if rows >= GROUP:
                writer.write_table(arrow.concat_tables(waiting))
                yield sink.taken(), rows
                waiting, rows = [], 0
        if waiting:
            writer.write_table(arrow.concat_tables(waiting))
    yield sink.taken(), rows


def _has_items(part: Range) -> bool:
    return bool(part.items)


def _table(arrow: Any, schema: Any, text: bytes) -> Any:
    """Rows that COPY has written: an absent value is an empty cell, an empty text is in quotes."""
    return arrow.csv.read_csv(
        io.BytesIO(text),
        read_options=arrow.csv.ReadOptions(column_names=schema.names, use_threads=False, block_size=len(text) + 1),
        parse_options=arrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,
        ),
    )


class _Sink(io.RawIOBase):
    """What was written and not taken yet; the writer asks only how far it is."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._written += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._written

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
