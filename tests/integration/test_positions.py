"""Positions outlive an upgrade: what is written here by hand is what runs in flight, and checkpoints, have always held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.declare.source import parse, secrets_of
from etl.errors import ETLError
from etl.extract import open_source, target_for
from etl.extract.batching import Batcher
from etl.mapping.mapper import Mapper
from etl.records import Checkpoint, Position
from testkit.fake_server import FakeServer, Request, Response
from testkit.reading import Recorder, context

BATCH = 4
ROWS = b"id\n" + b"".join(b"%0100d\n" % number for number in range(2000))
# The hash of its first 65,536 bytes, and of all.
HEAD, WHOLE = "5abe944024b9bcf32c3c4fd2a56d6fe0", "f305f8e58121ca22e4bb267324588a7b"  # pragma: allowlist secret
ITEMS: dict[str, Any] = {
    "type": "api",
    "records": "items",
    "paginate": {"style": "cursor", "param": "at", "next": "next"},
    "incremental": {"field": "id", "param": "since"},
}


class Slices:
    """A run of a source; each slice stores one batch."""

    def __init__(self, document: dict[str, Any], folder: Path) -> None:
        self._source = parse({"name": "a", **document})
        self._context = context(Recorder().client(), folder)

    def first(self, position: dict[str, Any] | None) -> tuple[list[str], dict[str, Any]]:
        """The ids in the first batch from a position on, and the position after it, as the database keeps it."""
        start = msgspec.convert(position or {}, Position)
        source, mapper = self._source, Mapper(self._source, 10**6)
        extractor = open_source(source, target_for(source, dict.fromkeys(secrets_of(source), "")), self._context)
        batch = next(iter(Batcher(mapper, BATCH).batches(extractor.pages(start), start)))
        position = json.loads(msgspec.json.encode(batch.position))
        # What older releases do not know, and write.
        assert position.pop("known") is False
        return [json.loads(each.payload)["id"] for each in batch.records], position


def written(cursor: dict[str, Any] | None, **facts: Any) -> dict[str, Any]:
    empty = {"done": 0, "validator": None, "tries": 0, "config": "", "mapping": 0, "watermark": None, "kept": None}
    return {**empty, "finished": False, "cursor": cursor, **facts}


def items(asked: Request) -> Response:
    """Pages of three records: 10 to 12, 20 to 22, 30 to 32."""
    number = int(asked.query.get("at", 1))
    records = [{"id": f"{number}{each}"} for each in range(3)]
    return Response(json.dumps({"items": records, "next": number + 1 if number < 3 else None}).encode())


def test_an_api_goes_on_in_mid_page(fake_server: FakeServer, tmp_path: Path) -> None:
    slices = Slices({**ITEMS, "request": {"url": fake_server.on("/items", items)}}, tmp_path)
    second = written(
        {"number": 2, "at": 2, "since": "10"},
        done=1,
        validator="72caef3ff2e45a8ac527481bc652d89a",  # pragma: allowlist secret
        kept={},
        watermark="22",
    )
    third = written(
        {"number": 3, "at": 3, "since": "10"},
        done=2,
        validator="b013269f6df6224113cfd392a261a3d6",  # pragma: allowlist secret
        kept={},
        watermark="32",
    )
    assert slices.first(second) == (["21", "22", "30", "31"], third)
    assert fake_server.asked[0].query == {"at": "2", "since": "10"}


def test_an_api_that_was_restarted_is_not_restarted_again(fake_server: FakeServer, tmp_path: Path) -> None:
    slices = Slices({**ITEMS, "request": {"url": fake_server.on("/items", Response(status=410))}}, tmp_path)
    with pytest.raises(ETLError, match="answered 410"):
        slices.first(written({"number": 2, "at": 2, "restarted": True}))


@pytest.mark.parametrize("broken", [["foreign_page", "elsewhere"], ["bad_page", "too long"]])
def test_a_page_that_cannot_be_had_is_told_by_its_position(tmp_path: Path, broken: list[str]) -> None:
    slices = Slices({**ITEMS, "request": {"url": "http://127.0.0.1:1/"}}, tmp_path)
    with pytest.raises(ETLError) as caught:
        slices.first(written({"number": 2, "at": None, "broken": broken}))
    assert [caught.value.code, caught.value.message] == broken


def test_the_position_of_a_page_that_cannot_be_had_says_why(fake_server: FakeServer, tmp_path: Path) -> None:
    body = b'{"items": [{"id": "1"}, {"id": "2"}, {"id": "3"}, {"id": "4"}], "next": "http://other/"}'
    document = {**ITEMS, "request": {"url": fake_server.on("/a", Response(body))}, "paginate": {"style": "next_url"}}
    broken = ["foreign_page", "the next page is on another host"]
    after = written({"number": 2, "at": None, "broken": broken}, kept={}, watermark="4")
    assert Slices(document, tmp_path).first(None) == (["1", "2", "3", "4"], after)


def test_a_feed_goes_on_in_mid_page(fake_server: FakeServer, tmp_path: Path) -> None:
    entries = "".join(f"<item><guid>{number}</guid><title>x</title></item>" for number in range(9))
    feed = f'<rss version="2.0"><channel><title>a</title>{entries}</channel></rss>'.encode()
    slices = Slices({"type": "rss", "request": {"url": fake_server.on("/f", Response(feed))}}, tmp_path)
    first = written({"at": None}, done=4, validator="85d3f9ffef51b68395e67b1be7199256")
    assert slices.first(None) == (["8", "7", "6", "5"], first)
    assert slices.first(first) == (["4", "3", "2", "1"], {**first, "done": 8})


def test_a_file_goes_on_in_mid_page(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(ROWS)
    status = path.stat()
    mark = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    slices = Slices({"type": "csv", "file": "x.csv"}, tmp_path)
    start = written({"name": "x.csv", "file": mark, "digest": WHOLE, "offset": 3, "row": 0}, validator=mark)
    assert slices.first(None)[1] == {**start, "done": 4}
    second = written(
        {"name": "x.csv", "file": mark, "digest": WHOLE, "offset": 65451, "row": 648}, done=5, validator=mark, kept={}
    )
    assert slices.first(second) == ([f"{number:0100}" for number in range(653, 657)], {**second, "done": 9})


def test_what_was_added_to_a_file_goes_on_in_mid_page(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(ROWS)
    slices = Slices({"type": "csv", "file": "x.csv", "mode": "append"}, tmp_path)
    cursor = {"name": "x.csv", "file": HEAD, "head": 65536, "offset": 65451, "row": 648}
    second = written(cursor, done=5, validator=HEAD, kept={})
    assert slices.first(second) == ([f"{number:0100}" for number in range(653, 657)], {**second, "done": 9})


def test_files_that_were_read_are_not_read_again(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(f"id\n{name}\n")
    done = {"files": {"a.csv": {"digest": "0" * 32, "offset": 5}}}
    between = written({"name": "a.csv", "file": "read"}, kept=done)
    ids, position = Slices({"type": "csv", "file": "*.csv"}, tmp_path).first(between)
    assert (ids, position["finished"]) == (["b"], True)
    assert position["kept"]["files"]["a.csv"] == done["files"]["a.csv"]


def test_a_download_goes_on_in_mid_page(fake_server: FakeServer, tmp_path: Path) -> None:
    slices = Slices(
        {"type": "csv", "request": {"url": fake_server.on("/x", Response(ROWS, headers={"ETag": "x"}))}}, tmp_path
    )
    _, first = slices.first(None)
    validator = {"request": first["cursor"]["validator"]["request"], "etag": "x", "digest": WHOLE}
    cursor = {"name": "", "file": WHOLE, "validator": validator, "offset": 65451, "row": 648}
    assert first == written({**cursor, "offset": 3, "row": 0}, done=4, validator=WHOLE)
    second = written(cursor, done=5, validator=WHOLE, kept={})
    assert slices.first(second) == ([f"{number:0100}" for number in range(653, 657)], {**second, "done": 9})
    assert len(fake_server.asked) == 1


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "watermark", "config": "c", "mapping": 3, "watermark": "2026-01-01T00:00:00Z"},
        {"kind": "kept", "kept": {"validator": {"request": "r", "etag": "e", "last_modified": "m", "digest": "d"}}},
        {"kind": "kept", "kept": {"files": {"a": {"digest": "d", "offset": 3, "row": 1, "appending": True}}}},
    ],
)
def test_checkpoints_keep_their_form(value: dict[str, Any]) -> None:
    assert msgspec.to_builtins(msgspec.convert(value, Checkpoint)) == value
