"""What others expect of a CSV reader: csv-spectrum, the cases that every parser meets, and files made at random."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from etl.files.rows import CHUNK
from etl.records import BadRecord, Page
from testkit.reading import Recorder, position_at, read, records

SPECTRUM = Path(__file__).parents[1] / "suites" / "csv_spectrum"
# Nothing is made even or left out.
AS_IT_IS: dict[str, Any] = {"ragged": "reject", "drop_empty_rows": False}
PIECES = [
    "a",
    "Zürich",
    "漢字",
    "😀",
    "\u2028",
    "\x85",
    "\x0b",
    " ",
    '"',
    '""',
    ",",
    ";",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "'",
    "\\",
]


def pages(tmp_path: Path, body: bytes, **dialect: Any) -> list[Page]:
    (tmp_path / "x.csv").write_bytes(body)
    document = {"type": "csv", "file": "x.csv", **({"csv": dialect} if dialect else {})}
    return read(document, Recorder().client(), tmp_path)


def rows(tmp_path: Path, body: bytes, **dialect: Any) -> list[Any]:
    """The rows as lists of fields; a bad one as its bytes."""
    found = records(pages(tmp_path, body, **dialect))
    return [row.raw if isinstance(row, BadRecord) else list(row.values()) for row in found]


@pytest.mark.parametrize("name", sorted(path.stem for path in SPECTRUM.glob("*.csv")))
def test_csv_spectrum(tmp_path: Path, name: str) -> None:
    expected = json.loads((SPECTRUM / f"{name}.json").read_text())
    if name == "location_coordinates":
        # Here the suite contradicts itself: not a list, and another phone number than in the file.
        assert expected["Contact Phone Number"] == "1234567890"
        expected = [{**expected, "Contact Phone Number": "2095257564"}]
    assert records(pages(tmp_path, (SPECTRUM / f"{name}.csv").read_bytes())) == expected


def test_csv_spectrum_is_whole() -> None:
    assert len(list(SPECTRUM.glob("*.csv"))) == 12


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # The delimiter is found.
        (b"a,b\n1,2\n", [["1", "2"]]),
        (b"a;b\n1;2\n", [["1", "2"]]),
        (b"a\tb\n1\t2\n", [["1", "2"]]),
        (b"a|b\n1|2\n", [["1", "2"]]),
        (b"price;share\n1,5;2,5\n3,5;4,5\n", [["1,5", "2,5"], ["3,5", "4,5"]]),
        (b'"a,b";"c"\n"1,2,3";"4"\n', [["1,2,3", "4"]]),
        (b"a|b\nx;y|z\n1|2;3\n", [["x;y", "z"], ["1", "2;3"]]),
        (b"a\tb\n1, 2 and 3\tx\n4, 5 and 6\ty\n", [["1, 2 and 3", "x"], ["4, 5 and 6", "y"]]),
        # One column.
        (b"a\n1\n2\n", [["1"], ["2"]]),
        (b"text\nnone\none; two\nnone\n", [["none"], ["one; two"], ["none"]]),
        (b'a\n""\n1\n', [[""], ["1"]]),
        # Quotes.
        (b'a,b\n"1,2",3\n', [["1,2", "3"]]),
        (b'a;b\n"1;2";3\n', [["1;2", "3"]]),
        (b'a,b\n"1\n2",3\n', [["1\n2", "3"]]),
        (b'a,b\r\n"1\r\n2",3\r\n', [["1\r\n2", "3"]]),
        (b'a,b\r"1\r2",3\r4,5', [["1\r2", "3"], ["4", "5"]]),
        (b'a,b\n"1\r2","3\r\n\r\n4"\n', [["1\r2", "3\r\n\r\n4"]]),
        (b'a,b\n"say ""hi""",""""\n', [['say "hi"', '"']]),
        (b'a,b\n"",""\n"""",""","""\n', [["", ""], ['"', '","']]),
        (b'"a ""x""","b\nc"\n1,2\n', [["1", "2"]]),
        (b'a,b\nx "y" z,5\'10"\n', [['x "y" z', "5'10\""]]),
        (b'a,b\n "1" , 2\n', [[' "1" ', " 2"]]),
        # Rows that do not fit.
        (b"a,b\n1\n2,3\n4,5,6\n", [b"1\n", ["2", "3"], b"4,5,6\n"]),
        (b'a,b\n"1"x,2\n3,4\n', [b'"1"x,2\n', ["3", "4"]]),
        (b'a,b\n1,2\n"3,4\n', [["1", "2"], b'"3,4\n']),
        # Ends and empty lines.
        (b"a,b\n\n1,2\n\r\n\n3,4\n\n", [["1", "2"], ["3", "4"]]),
        (b"a,b\n,\n", [["", ""]]),
        (b"a,b\n1,2", [["1", "2"]]),
        (b"a\r1", [["1"]]),
        (b"a,b\r1\r2,3\r4,5\r6,", [b"1\r", ["2", "3"], ["4", "5"], ["6", ""]]),
        (b"a,b\n1,", [["1", ""]]),
        (b'a,b\n1,"2"', [["1", "2"]]),
        (b"a,b\n", []),
        (b"a,b", []),
        (b"\xef\xbb\xbfa,b\n1,2\n", [["1", "2"]]),
        (b'\xef\xbb\xbf"a",b\n\xef\xbb\xbf1,2\n', [["\ufeff1", "2"]]),
        (b"a,b\n1,\xe4\n", [["1", "ä"]]),
    ],
)
def test_cases_that_every_parser_meets(tmp_path: Path, body: bytes, expected: list[Any]) -> None:
    assert rows(tmp_path, body, **AS_IT_IS) == expected


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_first_column_is_named_without_the_mark(tmp_path: Path, mark: bytes) -> None:
    assert records(pages(tmp_path, mark + b'"first name",b\n1,2\n')) == [{"first name": "1", "b": "2"}]


def test_wide_rows(tmp_path: Path) -> None:
    names = [f"column {number}" for number in range(5000)]
    values = [[f"{row}.{number}" for number in range(5000)] for row in range(40)]
    body = "\n".join(",".join(row) for row in [names, *values]).encode()
    found = pages(tmp_path, body)
    assert len(found) > 3
    assert list(records(found)[0]) == names
    assert rows(tmp_path, body) == values


# Files made at random.


def field(chance: random.Random) -> str:
    """A short text as a rule, now and then one that does not fit into what is left of a stretch, or into a whole one."""
    if chance.random() < 0.005:
        return chance.choice("x\nü") * (chance.choice([CHUNK // 3, CHUNK, 2 * CHUNK]) // 2 + chance.randint(-5, 5))
    return "".join(chance.choices(PIECES, k=chance.randint(0, 6)))


def made(chance: random.Random, *, spoiled: bool) -> tuple[bytes, list[Any], dict[str, Any]]:
    """A file, the rows in it (a bad one as its bytes), and how it is written."""
    width, delimiter, end = chance.randint(2, 8), chance.choice(",;\t|"), chance.choice(["\n", "\r\n"])
    # Before Python 3.13 csv.writer leaves a lone carriage return unquoted where lines end otherwise.
    quoting: Any = csv.QUOTE_ALL if end == "\n" else chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    bad = [delimiter * width + "long", "short", f'"x"y{delimiter}z']
    body = bytearray(delimiter.join(f"c{n}" for n in range(width)) + end, "utf-8")
    expected: list[bytes | list[str]] = []
    while len(body) < 5 * CHUNK:
        if spoiled and chance.random() < 0.01:
            broken = (chance.choice(bad) + end).encode()
            expected.append(broken)
            body += broken
        else:
            row, line = [field(chance) for _ in range(width)], io.StringIO(newline="")
            csv.writer(line, delimiter=delimiter, lineterminator=end, quoting=quoting).writerow(row)
            expected.append(row)
            body += line.getvalue().encode()
        body += chance.choice([b"", b"", b"", end.encode()])
    return bytes(body), expected, {"delimiter": delimiter, "encoding": "utf-8", **AS_IT_IS}


@pytest.mark.parametrize("spoiled", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_what_was_written_is_read(tmp_path: Path, seed: int, spoiled: bool) -> None:
    body, expected, dialect = made(random.Random(seed), spoiled=spoiled)
    assert rows(tmp_path, body, **dialect) == expected


@pytest.mark.parametrize("seed", range(8))
def test_what_is_made_even_by_default(tmp_path: Path, seed: int) -> None:
    body, expected, dialect = made(random.Random(seed), spoiled=True)
    width = body.count(dialect["delimiter"].encode(), 0, body.index(b"\n")) + 1
    evened = [
        ["short", *[""] * (width - 1)] if isinstance(row, bytes) and row.startswith(b"short") else row
        for row in expected
        if isinstance(row, bytes) or any(field.strip(" \t") for field in row)
    ]
    assert rows(tmp_path, body, delimiter=dialect["delimiter"], encoding="utf-8") == evened


@pytest.mark.parametrize("seed", range(4))
def test_a_file_goes_on_where_any_page_ended(tmp_path: Path, seed: int) -> None:
    body, expected, dialect = made(random.Random(100 + seed), spoiled=True)
    found = pages(tmp_path, body, **dialect)
    document = {"type": "csv", "file": "x.csv", "csv": dialect}
    assert len(records(found)) == len(expected)
    assert len(found) > 4
    for number, page in enumerate(found[:-1], 1):
        resumed = read(document, Recorder().client(), tmp_path, position_at(page.following, kept=page.kept))
        assert records(resumed) == records(found[number:])
