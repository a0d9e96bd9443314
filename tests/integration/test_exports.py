"""Items exported: all of them, exactly, and never short without showing it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyarrow.parquet
import pytest
from flask.testing import FlaskClient

from db.queries import exports
from db.queries.exports import EXPORTED, Format, Wanted
from db.queries.item_paths import Filters
from etl.errors import ConfigError, StorageUnavailableError
from testkit.runner import SourceRunner
from web import __main__ as command
from web.app import create_app
from web.export_file import Exported, ExportFile, format_of
from web.packing import packing_of, unpacked
from web.ranges import ranges

ODD = [
    ("1", "=1+1", 'say "hi"', "10.50"),
    ("2", "-minus", "two\nlines", ""),
    ("3", "@at", "comma, here", "0.000000000000000000012"),
    ("4", "plain", "ünï", "123456789012345678901234567890"),
    ("5", "", "nothing", "-3"),
]


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    file = io.StringIO()
    csv.writer(file).writerows([("id", "title", "description", "price"), *ODD])
    runner.write("shop.csv", file.getvalue())
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    runner.run("shop")
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


def lines(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=str) for line in text.splitlines()]


def test_ndjson_is_what_the_list_shows_and_counts_itself(client: FlaskClient) -> None:
    answer = client.get("/data/export")
    assert answer.content_type == "application/x-ndjson"
    *items, end = lines(answer.data)
    listed = json.loads(client.get("/data?page_size=100").data, parse_float=str)["items"]
    assert items == sorted(listed, key=lambda item: item["id"])
    body = answer.data[: answer.data.rindex(b"\n", 0, -1) + 1]
    assert end == {
        "export_id": answer.headers["Export-Id"],
        "items": 5,
        "sha256": hashlib.sha256(body).hexdigest(),
        "complete": True,
    }
    state = client.get(f"/data/export/{answer.headers['Export-Id']}").get_json()
    assert (state["state"], state["items"], state["sha256"]) == ("complete", 5, end["sha256"])


def test_csv_reads_back_and_begins_no_formula(client: FlaskClient) -> None:
    answer = client.get("/data/export?format=csv&columns=external_id,title,description,amount")
    assert answer.content_type == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["external_id", "title", "description", "amount"]
    assert rows[1:] == [
        ["1", "'=1+1", 'say "hi"', "10.50"],
        ["2", "'-minus", "two\nlines", ""],
        ["3", "'@at", "comma, here", "0.000000000000000000012"],
        ["4", "plain", "ünï", "123456789012345678901234567890"],
        ["5", "", "nothing", "-3"],
    ]
    state = client.get(f"/data/export/{answer.headers['Export-Id']}").get_json()
    assert state["sha256"] == hashlib.sha256(answer.data).hexdigest()


def test_all_columns_come_without_a_choice(client: FlaskClient) -> None:
    header = client.get("/data/export?format=csv").text.partition("\n")[0]
    assert header.split(",") == list(exports.EXPORTED)


def test_filters_are_those_of_the_list(client: FlaskClient) -> None:
    def ids(query: str) -> list[str]:
        return [item["external_id"] for item in lines(client.get(f"/data/export?{query}").data)[:-1]]

    assert ids("search=comma") == ["3"]
    assert ids("source_name=shop&source_type=csv") == ["1", "2", "3", "4", "5"]
    assert ids("status=deleted") == []
    assert ids("updated_since=2999-01-01") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("format=xml", "format"),
        ("columns=id,secret", "columns"),
        ("columns=id,id", "columns"),
        ("columns=", "columns"),
        ("source_name=none", "source_name"),
        ("page=1", "page"),
        ("search=", "search"),
    ],
)
def test_what_is_wrong_is_named(client: FlaskClient, query: str, field: str) -> None:
    answer = client.get(f"/data/export?{query}")
    assert answer.status_code == 422
    assert field in answer.text


def test_it_comes_packed(client: FlaskClient) -> None:
    plain = client.get("/data/export?format=csv")
    packed = client.get("/data/export?format=csv", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data


def test_many_ranges_make_one_text(runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.write(
        "many.csv", "id,title,description\n" + "".join(f"{n},t{n},{'x' * (n % 40) * 50}\n" for n in range(3000))
    )
    shop = {"name": "shop", "type": "csv", "file": "shop.csv"}
    runner.declare(shop, {"name": "many", "type": "csv", "file": "many.csv"})
    runner.run("many")
    runner.sql("DELETE FROM unified_items WHERE id % 7 = 0")
    whole = client.get("/data/export?source_name=many").data
    monkeypatch.setattr("web.ranges.FIRST", 3)
    monkeypatch.setattr(exports, "RANGE_BYTES", 5000)
    monkeypatch.setattr("web.ranges.AIM", 20_000)
    parts = client.get("/data/export?source_name=many").data
    assert parts.rpartition(b"\n{")[0] == whole.rpartition(b"\n{")[0]
    assert len(lines(whole)) - 1 == runner.sql("SELECT count(*) FROM unified_items WHERE source_name = 'many'")[0]


def test_ranges_come_in_order_whichever_is_read_first(
    client: FlaskClient, runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.ranges.MOST", 1)
    monkeypatch.setattr("web.ranges.FIRST", 1)
    read = exports.read_range

    def late(connection: Any, wanted: Wanted, after: int, until: int) -> exports.Range:
        time.sleep(0.2 if after % 2 == 0 else 0)
        return read(connection, wanted, after, until)

    monkeypatch.setattr("web.ranges.read_range", late)
    assert client.get("/data/export?format=csv&columns=external_id").data == b"external_id\n1\n2\n3\n4\n5\n"


def test_who_hangs_up_leaves_nothing_at_work(
    client: FlaskClient, runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.ranges.MOST", 1)
    monkeypatch.setattr("web.ranges.FIRST", 1)
    threads = threading.active_count()
    parts = ranges(runner.database, Wanted(Filters(), ("id",), Format.CSV), 0, 5)
    next(parts)
    parts.close()
    assert (threading.active_count(), runner.database.in_use) == (threads, 0)


def test_texts_that_pack_well_are_read_a_few_at_a_time(runner: SourceRunner, client: FlaskClient) -> None:
    runner.sql("""
        INSERT INTO unified_items (source_type, source_name, external_id, description, raw_data_id, raw_ingested_at,
            run_id, content_hash, mapping_version)
        SELECT 'csv', 'shop', 'long ' || n, repeat('x', 100000), 1, now(), gen_random_uuid(), '\\x00', 1
        FROM generate_series(1, 200) n
    """)
    wanted = Wanted(Filters(), EXPORTED, Format.NDJSON)
    found = list(ranges(runner.database, wanted, 0, runner.database.read(exports.last_id)))
    assert sum(part.items for part in found) == 205
    assert max(len(part.text) for part in found) < 1.1 * exports.RANGE_BYTES


def test_who_reads_slowly_goes_on(runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noted within a range, however long that takes to be sent, and while nothing is found."""
    noted: list[str] = []

    def note(connection: Any, export_id: UUID, items: int, state: str, sha256: str | None = None) -> None:
        noted.append(state)

    monkeypatch.setattr("web.exports.note_export", note)
    monkeypatch.setattr("web.exports.NOTED", 0)
    monkeypatch.setattr("web.exports.SENT_AT_ONCE", 100)
    size = len(client.get("/data/export?format=csv").data)
    assert noted == ["running"] * noted.count("running") + ["complete"]
    assert noted.count("running") >= size // 100
    noted.clear()
    monkeypatch.setattr("web.ranges.FIRST", 1)
    monkeypatch.setattr("web.ranges.MOST", 1)
    assert client.get("/data/export?format=csv&columns=id&category=none").data == b"id\n"
    assert noted == ["running"] * 6 + ["complete"]


def test_who_asks_for_the_head_takes_no_place(runner: SourceRunner, client: FlaskClient) -> None:
    for _ in range(3):
        answer = client.head("/data/export?format=csv")
        assert (answer.status_code, answer.content_type) == (200, "text/csv; charset=utf-8")
        assert "Content-Length" not in answer.headers
    assert client.head("/data/export?format=xml").status_code == 422
    assert runner.sql("SELECT count(*) FROM exports") == [0]


def test_two_go_on_and_a_third_waits(runner: SourceRunner, client: FlaskClient) -> None:
    wanted = exports.Wanted(Filters(), ("id",), exports.Format.CSV)
    for _ in range(2):
        runner.database.transact(exports.begin_export, uuid4(), wanted)
    refused = client.get("/data/export")
    assert refused.status_code == 429
    assert refused.get_json()["type"] == "urn:kasparro:problem:too_many_exports"
    # One that died without a word holds its place for a minute.
    runner.sql("UPDATE exports SET seen_at = now() - interval '61 s'")
    assert client.get("/data/export").status_code == 200
    assert runner.sql("SELECT count(*) FROM exports WHERE state = 'running'") == [2]


def test_one_that_breaks_off_is_seen(
    runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.ranges.FIRST", 1)
    monkeypatch.setattr("web.ranges.MOST", 1)
    read, calls = exports.read_range, [0]

    def failing(*arguments: Any) -> exports.Range:
        calls[0] += 1
        if calls[0] > 2:
            raise StorageUnavailableError("gone")
        return read(*arguments)

    monkeypatch.setattr("web.ranges.read_range", failing)
    monkeypatch.setattr(runner.database, "_patience", 0.1)
    with pytest.raises(StorageUnavailableError):
        _ = client.get("/data/export").data
    (found,) = runner.sql("SELECT export_id FROM exports")
    state = client.get(f"/data/export/{found}").get_json()
    assert (state["state"], state["sha256"]) == ("broken", None)
    assert client.get(f"/data/export/{uuid4()}").status_code == 404


def test_old_ones_are_forgotten(runner: SourceRunner, client: FlaskClient) -> None:
    """A day after they ended: a slow reader may need longer than that."""
    client.get("/data/export")
    runner.sql("UPDATE exports SET started_at = now() - interval '49 h', seen_at = now() - interval '23 h'")
    assert runner.database.transact(exports.purge_exports) == 0
    runner.sql("UPDATE exports SET seen_at = now() - interval '25 h'")
    assert runner.database.transact(exports.purge_exports) == 1


def test_csv_is_refused_where_its_end_does_not_show(runner: SourceRunner, client: FlaskClient) -> None:
    old = {"SERVER_PROTOCOL": "HTTP/1.0"}
    refused = client.get("/data/export?format=csv", environ_overrides=old)
    assert (refused.status_code, refused.get_json()["type"]) == (505, "urn:kasparro:problem:old_protocol")
    assert runner.sql("SELECT count(*) FROM exports") == [0]
    for path, accepted in (("", ""), ("?format=csv", "gzip"), ("?format=parquet", "")):
        answer = client.get(f"/data/export{path}", environ_overrides=old, headers={"Accept-Encoding": accepted})
        assert answer.status_code == 200


def test_one_that_is_begun_twice_has_one_place(runner: SourceRunner) -> None:
    """As when the answer to a commit was lost."""
    wanted, export_id = exports.Wanted(Filters(), ("id",), exports.Format.CSV), uuid4()
    for _ in range(3):
        runner.database.transact(exports.begin_export, export_id, wanted)
    runner.database.transact(exports.begin_export, uuid4(), wanted)
    assert runner.sql("SELECT count(*) FROM exports") == [2]


@pytest.mark.parametrize("kind", ["ndjson", "parquet"])
def test_gaps_in_the_ids_are_passed_over(
    runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for at in (5_000_000_000, 7_000_000_000_000):
        runner.sql(f"SELECT setval(pg_get_serial_sequence('unified_items', 'id'), {at})")
        runner.write("shop.csv", f"id,title,description,price\n{at},later,,1\n")
        runner.run("shop")
    read, calls = exports.read_range, list[int]()

    def counting(*arguments: Any) -> exports.Range:
        calls.append(1)
        return read(*arguments)

    monkeypatch.setattr("web.ranges.read_range", counting)
    answer = client.get(f"/data/export?format={kind}&columns=id")
    assert answer.data
    assert client.get(f"/data/export/{answer.headers['Export-Id']}").get_json()["items"] == 7
    assert len(calls) < 10


def test_parquet_keeps_a_byte_order_mark_of_a_text(runner: SourceRunner, client: FlaskClient) -> None:
    for title in ("\ufeffHello", "\ufeff"):
        runner.sql(f"UPDATE unified_items SET title = '{title}'")
        rows = parquet(client.get("/data/export?format=parquet&columns=title").data)
        assert rows == [{"title": title}] * 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("search", ""), ("columns", ""), ("updated-since", ""), ("source-name", "x\0")],
)
def test_a_filter_of_the_command_is_not_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """As that of a variable which is not set."""
    assert command.main(["export", str(tmp_path / "items.csv"), f"--{name}", value]) != 0
    assert f"--{name}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def parquet(body: bytes) -> list[dict[str, Any]]:
    table = pyarrow.parquet.ParquetFile(io.BytesIO(body)).read(use_threads=False)
    return list(table.to_pylist())


def test_parquet_has_types_and_tells_absent_from_empty(client: FlaskClient) -> None:
    answer = client.get(
        "/data/export?format=parquet&columns=id,external_id,title,description,amount,created_at,tags,metadata"
    )
    assert answer.content_type == "application/vnd.apache.parquet"
    rows = parquet(answer.data)
    assert [(row["external_id"], row["title"], row["description"], row["amount"]) for row in rows] == [
        ("1", "=1+1", 'say "hi"', 10.5),
        ("2", "-minus", "two\nlines", None),
        ("3", "@at", "comma, here", 0.000000000000000000012),
        ("4", "plain", "ünï", 123456789012345678901234567890.0),
        ("5", None, "nothing", -3.0),
    ]
    assert all(isinstance(row["id"], int) and row["created_at"].tzinfo is not None for row in rows)
    assert [(row["tags"], json.loads(row["metadata"])) for row in rows] == [(None, {})] * 5
    state = client.get(f"/data/export/{answer.headers['Export-Id']}").get_json()
    assert (state["state"], state["items"]) == ("complete", 5)
    assert state["sha256"] == hashlib.sha256(answer.data).hexdigest()


def test_parquet_without_an_item_is_a_file(client: FlaskClient) -> None:
    assert parquet(client.get("/data/export?format=parquet&status=deleted").data) == []


def test_parquet_without_what_makes_it_takes_no_place(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for _ in range(3):
        answer = client.get("/data/export?format=parquet")
        assert (answer.status_code, answer.get_json()["type"]) == (501, "urn:kasparro:problem:not_installed")


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_packed_stream_is_the_same(client: FlaskClient, packing: str) -> None:
    answer = client.get("/data/export", headers={"Accept-Encoding": packing})
    assert answer.headers["Content-Encoding"] == packing
    text = unpacked(io.BytesIO(answer.data), packing).read()
    *items, end = lines(text)
    assert (len(items), end["items"]) == (5, 5)


@pytest.mark.parametrize("name", ["items.ndjson", "items.csv", "items.ndjson.gz", "items.csv.zst", "items.parquet"])
def test_a_file_holds_what_the_stream_does(client: FlaskClient, runner: SourceRunner, name: str) -> None:
    path = runner.folder / name
    kind = format_of(path)
    assert kind is not None
    done = ExportFile(path, runner.database, Wanted(Filters(), EXPORTED, kind), lambda _: None).write()
    streamed = client.get(f"/data/export?format={kind}").data
    with path.open("rb") as file:
        written = unpacked(file, packing_of(path)).read()
    if kind is Format.NDJSON:
        streamed, written = (text[: text.rindex(b"\n", 0, -1) + 1] for text in (streamed, written))
    if kind is Format.PARQUET:
        assert parquet(written) == parquet(streamed)
    else:
        assert written == streamed
    assert done == Exported(5, hashlib.sha256(written).hexdigest())
    assert [one.name for one in runner.folder.glob("items*")] == [name]


class _EndedError(Exception):
    pass


@pytest.mark.parametrize("name", ["items.ndjson", "items.csv.gz", "items.ndjson.zst"])
@pytest.mark.parametrize("torn", [b"", b"half of a range"])
def test_a_file_that_was_ended_goes_on(
    client: FlaskClient, runner: SourceRunner, monkeypatch: pytest.MonkeyPatch, name: str, torn: bytes
) -> None:
    monkeypatch.setattr("web.ranges.FIRST", 1)
    monkeypatch.setattr("web.ranges.MOST", 1)
    path = runner.folder / name
    kind = format_of(path)
    assert kind is not None
    whole = ExportFile(
        runner.folder / f"whole.{kind}", runner.database, Wanted(Filters(), EXPORTED, kind), print
    ).write()

    stops = [2, 4]

    def end(items: int) -> None:
        if items == stops[0]:
            stops.pop(0)
            raise _EndedError

    for _ in (2, 4):
        with pytest.raises(_EndedError):
            ExportFile(path, runner.database, Wanted(Filters(), EXPORTED, kind), end).write()
        assert not path.exists()
        part = path.with_name(name + ".part")
        part.write_bytes(part.read_bytes() + torn)
    asked: list[int] = []
    done = ExportFile(path, runner.database, Wanted(Filters(), EXPORTED, kind), asked.append).write()
    assert done == whole
    assert asked == [5]


def test_a_file_that_was_asked_for_otherwise_begins_anew(
    client: FlaskClient, runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.ranges.MOST", 1)
    path = runner.folder / "items.csv"

    def end(_: int) -> None:
        raise _EndedError

    with pytest.raises(_EndedError):
        ExportFile(path, runner.database, Wanted(Filters(), ("id", "title"), Format.CSV), end).write()
    ExportFile(path, runner.database, Wanted(Filters(), ("external_id",), Format.CSV), lambda _: None).write()
    assert path.read_text() == "external_id\n1\n2\n3\n4\n5\n"


def test_a_file_of_a_database_that_was_restored_since_begins_anew(
    client: FlaskClient, runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids may have been given otherwise since. A table that is written anew is another one."""
    monkeypatch.setattr("web.ranges.FIRST", 1)
    monkeypatch.setattr("web.ranges.MOST", 1)
    path = runner.folder / "items.csv"
    wanted = Wanted(Filters(), ("external_id",), Format.CSV)

    def end(_: int) -> None:
        raise _EndedError

    with pytest.raises(_EndedError):
        ExportFile(path, runner.database, wanted, end).write()
    runner.sql("CLUSTER unified_items USING pk_unified_items")
    told: list[int] = []
    ExportFile(path, runner.database, wanted, told.append).write()
    assert told[0] == 1
    assert path.read_text() == "external_id\n1\n2\n3\n4\n5\n"


def test_a_folder_that_there_is_not_is_named(client: FlaskClient, runner: SourceRunner) -> None:
    path = runner.folder / "nowhere" / "items.csv"
    with pytest.raises(ConfigError, match="nowhere"):
        ExportFile(path, runner.database, Wanted(Filters(), EXPORTED, Format.CSV), lambda _: None).write()


def test_parquet_of_one_column_has_its_absent_values(client: FlaskClient) -> None:
    rows = parquet(client.get("/data/export?format=parquet&columns=category").data)
    assert rows == [{"category": None}] * 5


def test_parquet_is_not_packed_twice(client: FlaskClient, runner: SourceRunner) -> None:
    for name in ("items.parquet.gz", "items.parquet.zst"):
        with pytest.raises(ConfigError, match="packed already"):
            ExportFile(
                runner.folder / name, runner.database, Wanted(Filters(), EXPORTED, Format.PARQUET), lambda _: None
            ).write()


def test_two_do_not_write_one_file(client: FlaskClient, runner: SourceRunner) -> None:
    path = runner.folder / "items.csv"
    wanted = Wanted(Filters(), EXPORTED, Format.CSV)

    def begin_another(_: int) -> None:
        with pytest.raises(ConfigError, match="another export writes it"):
            ExportFile(path, runner.database, wanted, lambda _: None).write()

    assert ExportFile(path, runner.database, wanted, begin_another).write().items == 5
    assert len(path.read_text().splitlines()) > 5


def test_a_file_does_not_go_on_behind_one_of_another_form(
    client: FlaskClient, runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.ranges.MOST", 1)
    path = runner.folder / "items.out"

    def end(_: int) -> None:
        raise _EndedError

    for kind in (Format.CSV, Format.PARQUET):
        with pytest.raises(_EndedError):
            ExportFile(path, runner.database, Wanted(Filters(), ("external_id",), kind), end).write()
    ExportFile(path, runner.database, Wanted(Filters(), ("external_id",), Format.CSV), lambda _: None).write()
    assert path.read_text() == "external_id\n1\n2\n3\n4\n5\n"
