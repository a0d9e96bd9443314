"""CSV files and downloads."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench.outside import Answered, Outside
from etl.errors import ETLError, FormatError
from etl.extract import open_source
from etl.records import BadRecord, Position
from etl.source import parse
from tests.reading import Recorder, context, read, records


def csv(tmp_path: Path, body: bytes, **dialect: Any) -> list[Any]:
    (tmp_path / "x.csv").write_bytes(body)
    document = {"type": "csv", "file": "x.csv", **({"csv": dialect} if dialect else {})}
    return records(read(document, Recorder().client(), tmp_path))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"a,b\n1,2\n", [{"a": "1", "b": "2"}]),
        (b"a,b\r\n1,2", [{"a": "1", "b": "2"}]),
        (b"a,b\r1,2\r3,4\r", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        (b'a,b\n"1\n\n1","x""y"\n', [{"a": "1\n\n1", "b": 'x"y'}]),
        (b"\xef\xbb\xbfa,a,,b \n1,2,3,4\n", [{"a": "1", "a_2": "2", "column_3": "3", "b": "4"}]),
        (b"\n\na\n1\n\n\n2\n", [{"a": "1"}, {"a": "2"}]),
        ("a\nä\u2028\x85b\n".encode(), [{"a": "ä\u2028\x85b"}]),
        (gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"), [{"a": "1"}, {"a": "2"}]),
        (bz2.compress(b"a\n1\n"), [{"a": "1"}]),
        ("a\nä\n".encode("utf-16"), [{"a": "ä"}]),
    ],
)
def test_files(tmp_path: Path, body: bytes, expected: list[Any]) -> None:
    assert csv(tmp_path, body) == expected


def test_dialects(tmp_path: Path) -> None:
    assert csv(tmp_path, b"1;'2;3'\n", delimiter=";", quote="'", header=False) == [{"column_1": "1", "column_2": "2;3"}]
    assert csv(tmp_path, "a\n5€\n".encode("cp1252"), encoding="cp1252") == [{"a": "5€"}]


def test_zip_with_one_member(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.csv", "a\n1\n")
    assert csv(tmp_path, packed.getvalue()) == [{"a": "1"}]
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("y.csv", "a\n1\n")
    with pytest.raises(FormatError, match="2 files"):
        (tmp_path / "scratch").unlink(missing_ok=True)
        csv(tmp_path, packed.getvalue())


@pytest.mark.parametrize(
    "body", [gzip.compress(b"a\n" + b"1\n" * 1000)[:-20], b"PK\x03\x04junk", b"\x1f\x8bjunk", b"", b"\n\n"]
)
def test_broken_files_are_a_failure(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(FormatError):
        csv(tmp_path, body)


def test_bad_rows_cost_only_themselves(tmp_path: Path) -> None:
    found = csv(tmp_path, b'a,b\n1,2\n3\n4,5,6\n"open,7\n8,9\n\xff,1\nlast,one\n', encoding="utf-8")
    assert [r.rule if isinstance(r, BadRecord) else r["a"] for r in found] == [
        *("1", "columns", "columns", "csv", "8", "encoding", "last"),
    ]
    assert [r.raw for r in found if isinstance(r, BadRecord)] == [b"3\n", b"4,5,6\n", b'"open,7\n', b"\xff,1\n"]


def test_a_file_is_resumed_at_its_offset(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"a,b\n" + b"".join(b"%d,%s\n" % (n, b"x" * 100) for n in range(10_000)))
    document = {"type": "csv", "file": "x.csv"}
    pages = read(document, Recorder().client(), tmp_path)
    assert len(pages) > 4
    assert [record["a"] for record in records(pages)] == [str(n) for n in range(10_000)]
    resumed = read(document, Recorder().client(), tmp_path, Position(pages[0].following))
    assert records(resumed) == records(pages[1:])
    (tmp_path / "x.csv").write_bytes(b"a\nnew\n")
    assert records(read(document, Recorder().client(), tmp_path, Position(pages[0].following))) == [{"a": "new"}]


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/hostname", "link.csv", "."])
def test_files_outside_of_the_allowed_folders_are_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (inside / "link.csv").symlink_to(tmp_path / "secret.csv")
    source = parse({"name": "a", "type": "csv", "file": name})
    extractor = open_source(source, None, context(Recorder().client(), inside, roots=(inside,)))
    with pytest.raises(ETLError):
        list(extractor.pages(Position()))


def test_csv_by_address(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/x", [Answered(status=500), Answered(gzip.compress(b"a\n1\n2\n"))])
    pages = read({"type": "csv", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"a": "1"}, {"a": "2"}]
    assert not (tmp_path / "scratch").exists()
