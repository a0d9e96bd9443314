"""CSV files and downloads."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.declare.source import parse
from etl.errors import ConfigError, ETLError, FormatError
from etl.extract import csv_files, open_source, target_for
from etl.files import find
from etl.records import BadRecord, Checkpoint, Position
from testkit.fake_server import FakeServer, Request, Response
from testkit.reading import Recorder, after, context, kept_of, mark_of, position_at, read, records
from testkit.runner import SourceRunner


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
    found = csv(tmp_path, b'a,b\n1,2\n3\n4,5,6\n"open,7\n8,9\n\xff,1\nlast,one\n', encoding="utf-8", ragged="reject")
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
    resumed = read(document, Recorder().client(), tmp_path, position_at(pages[0].following))
    assert records(resumed) == records(pages[1:])
    (tmp_path / "x.csv").write_bytes(b"a\nnew\n")
    assert records(read(document, Recorder().client(), tmp_path, position_at(pages[0].following))) == [{"a": "new"}]


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


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_what_becomes_a_link_after_it_was_checked_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "data"
    (inside / "day").mkdir(parents=True)
    outside.mkdir()
    (outside / "a.csv").write_text("a\nsecret\n")
    (inside / "day" / "a.csv").write_text("a\n1\n")
    found = find.find_files

    def find_then_swap(*arguments: Any) -> dict[str, Path]:
        files = found(*arguments)
        (inside / "day").rename(tmp_path / "old")
        if swapped == "folder":
            (inside / "day").symlink_to(outside)
        else:
            (inside / "day").mkdir()
            (inside / "day" / "a.csv").symlink_to(outside / "a.csv")
        return files

    monkeypatch.setattr(csv_files, "find_files", find_then_swap)
    source = parse({"name": "a", "type": "csv", "file": "day/*.csv"})
    extractor = open_source(source, None, context(Recorder().client(), inside, roots=(inside,)))
    with pytest.raises(FormatError) as caught:
        list(extractor.pages(Position()))
    assert caught.value.code == "file_not_found"


def test_a_name_may_hold_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.csv")).write_text("a\n1\n")
    (tmp_path / "b.csv").write_text("a\n2\n")
    pages = read({"type": "csv", "file": "*.csv"}, Recorder().client(), tmp_path)
    assert records(pages) == [{"a": "1"}, {"a": "2"}]
    kept = pages[-1].kept
    assert kept is not None
    assert list(json.loads(msgspec.json.encode(kept))["files"]) == ["\\xff.csv", "b.csv"]


def test_csv_by_address(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/x", [Response(status=500), Response(gzip.compress(b"a\n1\n2\n"))])
    pages = read({"type": "csv", "request": {"url": url}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"a": "1"}, {"a": "2"}]
    assert not (tmp_path / "scratch").exists()


def test_the_delimiter_is_found_out(tmp_path: Path) -> None:
    for delimiter in b",;\t|":
        mark = bytes([delimiter])
        body = b"a%sb\n1%s2\n" % (mark, mark) + b'"x%sy"%s3\n' % (mark, mark)
        assert csv(tmp_path, body)[0] == {"a": "1", "b": "2"}
    assert csv(tmp_path, b"name\nx;y\nz\n") == [{"name": "x;y"}, {"name": "z"}]
    assert csv(tmp_path, b"a;b\n1,5;2\n", delimiter=";") == [{"a": "1,5", "b": "2"}]


def test_lines_that_are_not_utf8_are_read_in_the_fallback(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("a\nä\n".encode() + "é\n".encode("cp1252") + b"\x81\n")
    seen = Recorder()
    found = records(read({"type": "csv", "file": "x.csv"}, seen.client(), tmp_path))
    assert found[:2] == [{"a": "ä"}, {"a": "é"}]
    assert found[2].rule == "encoding"
    assert seen.warnings == ["fallback_encoding"]


def test_wide_encodings_are_known_by_their_mark(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-32"):
        assert csv(tmp_path, "a\nä\n".encode(encoding)) == [{"a": "ä"}]
    assert csv(tmp_path, "a\nä\n".encode("utf-16-le"), encoding="utf-16-le") == [{"a": "ä"}]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    assert csv(tmp_path, b"1,2\n3\n", header=False)[0] == {"column_1": "1", "column_2": "2"}
    assert csv(tmp_path, b"", header=False) == []


def test_an_unchanged_file_is_hashed_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"a\n1\n")
    document = {"type": "csv", "file": "x.csv"}
    first = read(document, Recorder().client(), tmp_path)
    again = read(document, Recorder().client(), tmp_path, checkpoint=after(first[-1]))
    assert records(again) == []
    assert again[-1].kept == first[-1].kept
    (tmp_path / "x.csv").write_bytes(b"a\n2\n")
    changed = read(document, Recorder().client(), tmp_path, checkpoint=after(first[-1]))
    assert records(changed) == [{"a": "2"}]


def test_an_unchanged_download_is_one_request(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Response:
        if asked.headers.get("if-none-match") == "x":
            return Response(status=304)
        return Response(b"a\n1\n", headers={"ETag": "x"})

    document = {"type": "csv", "request": {"url": fake_server.on("/x", answer)}}
    first = read(document, Recorder().client(), tmp_path)
    again = read(document, Recorder().client(), tmp_path, checkpoint=after(first[-1]))
    assert records(again) == []
    assert len(fake_server.asked) == 2
    fake_server.on("/x", Response(b"a\n1\n"))
    by_hash = read(document, Recorder().client(), tmp_path, checkpoint=after(first[-1]))
    assert records(by_hash) == []
    assert not list(tmp_path.glob("scratch*"))


def test_a_download_is_resumed_without_asking_again(fake_server: FakeServer, tmp_path: Path) -> None:
    body = b"a\n" + b"".join(b"%0100d\n" % n for n in range(10_000))
    document = {"type": "csv", "request": {"url": fake_server.on("/x", Response(body, headers={"ETag": "x"}))}}
    source = parse({"name": "a", **document})
    pages = open_source(source, target_for(source, {}), context(Recorder().client(), tmp_path)).pages(Position())
    first = next(pages)
    del pages
    rest = read(document, Recorder().client(), tmp_path, position_at(first.following))
    assert len(records([first])) + len(records(rest)) == 10_000
    assert mark_of(rest[-1]) == "x"
    assert len(fake_server.asked) == 1


# Folders and patterns


def test_all_files_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b", "a", "c"):
        (tmp_path / "in" / f"{name}.csv").write_text(f"id\n{name}\n")
    (tmp_path / "in" / ".hidden").write_text("x\n1\n")
    (tmp_path / "in" / "d.txt").write_bytes(gzip.compress(b"id\nd\n"))
    seen = Recorder()
    first = read({"type": "csv", "file": "in"}, seen.client(), tmp_path)
    assert [record["id"] for record in records(first)] == ["a", "b", "c", "d"]
    assert list(kept_of(first[-1]).files) == ["a.csv", "b.csv", "c.csv", "d.txt"]
    (tmp_path / "in" / "b.csv").write_text("id\nB\n")
    (tmp_path / "in" / "e.csv").write_text("id\ne\n")
    (tmp_path / "in" / "c.csv").unlink()
    again = read({"type": "csv", "file": "in"}, seen.client(), tmp_path, checkpoint=after(first[-1]))
    assert [record["id"] for record in records(again)] == ["B", "e"]
    assert list(kept_of(again[-1]).files) == ["a.csv", "b.csv", "d.txt", "e.csv"]
    assert [record["id"] for record in records(read({"type": "csv", "file": "in/*.csv"}, seen.client(), tmp_path))] == [
        *("a", "B", "e")
    ]


def test_a_bad_file_does_not_keep_the_others_back(tmp_path: Path) -> None:
    for name, body in (("a", b"id\n1\n"), ("b", b"\x1f\x8bjunk"), ("c", b"id\n2\n")):
        (tmp_path / f"{name}.csv").write_bytes(body)
    seen = Recorder()
    source = parse({"name": "a", "type": "csv", "file": "*.csv"})
    found: list[Any] = []
    with pytest.raises(FormatError):
        for page in open_source(source, None, context(seen.client(), tmp_path)).pages(Position()):
            found.extend(page.records)
    assert found == [{"id": "1"}, {"id": "2"}]
    assert seen.warnings == ["bad_archive"]


def test_a_run_over_several_files_goes_on_where_it_was(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.csv").write_bytes(
            b"id\n" + b"".join(b"%s%0100d\n" % (name.encode(), n) for n in range(6000))
        )
    document = {"type": "csv", "file": "*.csv"}
    pages = read(document, Recorder().client(), tmp_path)
    expected = [record["id"] for record in records(pages)]
    assert len(expected) == 18_000
    position, done = Position(), 0
    for page in pages:
        done += len(page.records)
        position = position_at(page.following, kept=page.kept or position.kept)
        if page.following is None:
            break
        rest = read(document, Recorder().client(), tmp_path, position)
        assert [record["id"] for record in records(rest)] == expected[done:]
        assert rest[-1].kept == pages[-1].kept


@pytest.mark.parametrize("file", ["none.csv", "none/*.csv", "."])
def test_no_file_is_a_failure(tmp_path: Path, file: str) -> None:
    with pytest.raises(FormatError) as caught:
        read({"type": "csv", "file": file}, Recorder().client(), tmp_path)
    assert caught.value.code == "file_not_found"


def test_a_folder_that_was_emptied_is_no_failure(runner: SourceRunner) -> None:
    runner.declare({"name": "drop", "type": "csv", "file": "drop/*.csv"})
    (runner.folder / "drop").mkdir()
    assert runner.run("drop")["error"]["code"] == "file_not_found", "it never had any"
    runner.write("drop/a.csv", "id\n1\n")
    assert runner.run("drop")["records_inserted"] == 1
    (runner.folder / "drop/a.csv").unlink()
    for _ in range(2):
        run = runner.run("drop")
        assert (run["status"], run["records_extracted"]) == ("success", 0)
    warned = "SELECT count(*) FROM etl_run_events WHERE detail ->> 'code' = 'no_files'"
    assert runner.sql(warned) == [2]
    runner.write("drop/a.csv", "id\n1\n")
    assert runner.run("drop")["records_extracted"] == 0, "it is the file that was read"
    runner.write("drop/b.csv", "id,price\n2,dear\n3,3\n")
    assert runner.run("drop")["status"] == "partial"
    (runner.folder / "drop/a.csv").unlink()
    (runner.folder / "drop/b.csv").unlink()
    assert runner.run("drop")["status"] == "success", "although the run before was partial"
    runner.declare({"name": "drop", "type": "csv", "file": "drop/*.csv", "map": {"title": "id"}})
    assert runner.run("drop")["status"] == "success", "although records are mapped otherwise"
    runner.declare({"name": "drop", "type": "csv", "file": "drop/*.txt"})
    assert runner.run("drop")["error"]["code"] == "file_not_found", "that pattern never fitted any"
    runner.declare({"name": "drop", "type": "csv", "file": "drop/*.csv"})
    shutil.rmtree(runner.folder / "drop")
    assert runner.run("drop")["error"]["code"] == "file_not_found"


# Mode append


class Growing:
    """A file in mode append, polled again and again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.csv"
        self.folder = folder
        self.checkpoint = Checkpoint()
        self.seen = Recorder()

    def poll(self) -> list[Any]:
        pages = read(
            {"type": "csv", "file": "log.csv", "mode": "append"}, self.seen.client(), self.folder, None, self.checkpoint
        )
        self.checkpoint = after(pages[-1])
        return [record.rule if isinstance(record, BadRecord) else record["id"] for record in records(pages)]

    def add(self, text: str) -> None:
        with self.path.open("a", newline="") as file:
            file.write(text)


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(tmp_path)


def test_only_what_was_added_is_read(growing: Growing) -> None:
    growing.add("id\n1\n2\n")
    assert growing.poll() == ["1", "2"]
    assert growing.poll() == []
    growing.add("3\n")
    assert growing.poll() == ["3"]
    mark = growing.checkpoint.kept.files["log.csv"]
    assert (mark.offset, mark.row) == (growing.path.stat().st_size, 3)


def test_a_line_that_is_still_being_written_is_left_alone(growing: Growing) -> None:
    growing.add('id\n1\n"2 and')
    assert growing.poll() == ["1"]
    growing.add(" a half\nof it")
    assert growing.poll() == []
    growing.add('"\n3')
    assert growing.poll() == ["2 and a half\nof it"]
    growing.add("\n")
    assert growing.poll() == ["3"]


def test_a_file_that_was_cut_or_replaced_is_read_anew(growing: Growing) -> None:
    growing.add("id\n1\n2\n3\n")
    growing.poll()
    growing.path.write_text("id\n4\n")
    assert growing.poll() == ["4"]
    growing.path.write_text("id\n5\n6\n")
    assert growing.poll() == ["5", "6"]
    assert growing.seen.warnings == ["file_truncated", "file_rewritten"]


def test_an_open_quote_does_not_hold_a_file_back_for_ever(growing: Growing) -> None:
    growing.add('id\n1\n"open\n')
    assert growing.poll() == ["1"]
    growing.add("".join(f"{n:0100}\n" for n in range(1000)))
    found = growing.poll()
    assert found[0] == "csv"
    assert len(found) == 1001


def test_mode_append_needs_a_plain_file(growing: Growing) -> None:
    growing.path.write_bytes(gzip.compress(b"id\n1\n"))
    with pytest.raises(FormatError) as caught:
        growing.poll()
    assert caught.value.code == "not_appendable"
    with pytest.raises(ConfigError):
        parse({"name": "a", "type": "csv", "request": {"url": "http://x/"}, "mode": "append"})


def test_bad_rows_cost_the_same_in_the_middle_of_a_large_file(tmp_path: Path) -> None:
    good = b"".join(b"%d,%s\n" % (n, b"x" * 50) for n in range(20_000))
    (tmp_path / "x.csv").write_bytes(b"a,b\n" + good + b"only one\n" + good)
    document = {"type": "csv", "file": "x.csv", "csv": {"ragged": "reject"}}
    found = records(read(document, Recorder().client(), tmp_path))
    assert len(found) == 40_001
    assert found[20_000].message == "row 20001: 1 fields where the header has 2"


def test_a_header_that_is_still_being_written_is_left_alone(growing: Growing) -> None:
    growing.add("")
    assert growing.poll() == []
    growing.add("id,na")
    assert growing.poll() == []
    growing.add("me\n1,a\n")
    assert growing.poll() == ["1"]


def test_a_line_of_one_byte_after_a_bare_return(tmp_path: Path) -> None:
    assert csv(tmp_path, b"id\r1") == [{"id": "1"}]


def test_how_a_growing_file_is_written_is_told_by_what_it_was(growing: Growing) -> None:
    growing.add("id;note\n1;a, b\n")
    assert growing.poll() == ["1"]
    growing.add("".join(f"{number};a, b, c\n" for number in range(2, 9)))
    assert growing.poll() == [str(number) for number in range(2, 9)]


def test_a_title_that_was_there_first_is_no_header(growing: Growing) -> None:
    growing.add("Report 2025\n")
    assert growing.poll() == []
    growing.add("id;name;price\n0;n0;0.5\n1;n1;1.5\n")
    assert growing.poll() == ["0", "1"]
    growing.add("2;n2;2.5\n")
    assert growing.poll() == ["2"]


def test_a_preamble_of_any_length_leaves_the_table_as_it_is(tmp_path: Path) -> None:
    body = b"x" * 70_000 + b"\nid;name;price\n1;a,b;2\n2;c;3\n"
    assert csv(tmp_path, body, skip_lines=1) == [
        {"id": "1", "name": "a,b", "price": "2"},
        {"id": "2", "name": "c", "price": "3"},
    ]
