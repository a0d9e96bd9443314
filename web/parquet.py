"""Items as a Parquet file, made as it is sent. What makes it is installed beside the service: `pip install pyarrow`."""

from __future__ import annotations

import codecs
import importlib
import io
import sys
from typing import TYPE_CHECKING, Any

from db.queries.exports import is_number, is_time
from etl.errors import NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from db.queries.exports import Range

# Rows that are written together, or how much text of them: a reader may skip what it does not look for by such groups.
GROUP, GROUP_BYTES = 20_000, 16 * 1024 * 1024


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
        waiting, rows, held = list[Any](), 0, 0
        for part in parts:
            if part.items:
                waiting.append(_table(arrow, schema, part))
                rows, held = rows + part.items, held + len(part.text)
            if rows < GROUP and held < GROUP_BYTES:
                yield b"", 0
                continue
            writer.write_table(arrow.concat_tables(waiting))
            yield sink.taken(), rows
            waiting, rows, held = [], 0, 0
        if waiting:
            writer.write_table(arrow.concat_tables(waiting))
    yield sink.taken(), rows


def _table(arrow: Any, schema: Any, part: Range) -> Any:
    """Rows that COPY has written: an absent value is an empty cell, an empty text is in quotes."""
    # One byte order mark is taken off: that of the first item is not to be it.
    text = codecs.BOM_UTF8 + part.text
    table = arrow.csv.read_csv(
        io.BytesIO(text),
        read_options=arrow.csv.ReadOptions(column_names=schema.names, use_threads=False, block_size=len(text) + 1),
        parse_options=arrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=arrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    assert table.num_rows == part.items, (table.num_rows, part.items)
    return table


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
