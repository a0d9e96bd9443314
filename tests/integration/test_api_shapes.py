"""Answers of APIs in other shapes than a list of objects, and requests that say from where they ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from etl.declare.source import parse
from etl.errors import ConfigError, FetchError, FormatError, RefusedError, WaitError
from etl.records import BadRecord, Page, Position
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.reading import Recorder, position_at, read, records
from testkit.runner import SourceRunner


def answered(fake_server: FakeServer, tmp_path: Path, answer: Any, **source: Any) -> list[Page]:
    url = fake_server.on("/x", answer if isinstance(answer, Response) else as_json(answer))
    return read({"type": "api", "request": {"url": url}, **source}, Recorder().client(), tmp_path)


@pytest.mark.parametrize(
    ("answer", "source", "expected"),
    [
        ([[1, "a"], [2, "b"]], {"columns": ["id", "n"]}, [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}]),
        ([["id", "n"], [1, "a"]], {"header": True}, [{"id": 1, "n": "a"}]),
        ([], {"header": True}, []),
        ([["a", "a", None], [1, 2, 3]], {"header": True}, [{"a": 1, "a_2": 2, "column_3": 3}]),
        ({"data": [["id"], [1]]}, {"records": "data", "header": True}, [{"id": 1}]),
        (
            {"hourly": {"id": [1, 2], "t": [0.5, None]}},
            {"records": "hourly", "columnar": True},
            [{"id": 1, "t": 0.5}, {"id": 2, "t": None}],
        ),
        ({"id": []}, {"columnar": True}, []),
        (
            {"USD": {"rate": 1}, "EUR": {"rate": 2}},
            {"key_as": "id"},
            [{"rate": 1, "id": "USD"}, {"rate": 2, "id": "EUR"}],
        ),
        ({"rates": {"USD": 1}}, {"records": "rates", "key_as": "id"}, [{"value": 1, "id": "USD"}]),
        ({"id": 7}, {"single": True}, [{"id": 7}]),
        ({"data": None}, {"records": "data", "single": True, "allow_missing": True}, []),
    ],
)
def test_a_shape(fake_server: FakeServer, tmp_path: Path, answer: Any, source: dict[str, Any], expected: Any) -> None:
    found = records(answered(fake_server, tmp_path, answer, **source))
    assert [
        {name: float(v) if name == "t" and v is not None else v for name, v in one.items()} for one in found
    ] == expected


def test_a_row_of_another_width_costs_itself(fake_server: FakeServer, tmp_path: Path) -> None:
    found = records(answered(fake_server, tmp_path, [["id", "n"], [1], [2, "b"]], header=True))
    assert isinstance(found[0], BadRecord)
    assert found[1] == {"id": 2, "n": "b"}


@pytest.mark.parametrize(
    ("answer", "source", "message"),
    [
        ({"a": [1, 2], "b": [1]}, {"columnar": True}, "lists of [1, 2] values"),
        ({"a": 1}, {"columnar": True}, "expected `columnar`: a list at `a`"),
        ([1], {"key_as": "id"}, "expected `key_as`: an object of records, found a list"),
        ({"k": {"id": 5}}, {"key_as": "id"}, "have a `id` already"),
        ([1], {"single": True}, "expected `single`: one object, found a list"),
        ({"a": 1}, {"columns": ["a"]}, "expected a list of rows, found a dict"),
        ({"id": 1}, {}, "expected a list of records"),
    ],
)
def test_another_shape_than_declared_is_refused(
    fake_server: FakeServer, tmp_path: Path, answer: Any, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError) as refusal:
        answered(fake_server, tmp_path, answer, **source)
    assert message in refusal.value.message


@pytest.mark.parametrize("size", [3, 40_000])
def test_a_record_on_each_line(fake_server: FakeServer, tmp_path: Path, size: int) -> None:
    lines = [b'{"id": %d, "text": "%s"}' % (number, b"x" * 40) for number in range(size)]
    lines[1:1] = [b"", b"{broken", b"[1]"]
    (page,) = answered(fake_server, tmp_path, Response(b"\n".join(lines)), format="ndjson")
    found = list(page.records)
    assert len(page.records) == len(found) == size + 2
    assert [one.rule for one in found if isinstance(one, BadRecord)] == ["bad_json", "not_an_object"]
    assert found[-1]["id"] == size - 1  # type: ignore[index]


@pytest.mark.parametrize("status", [400, 404])
def test_a_page_past_the_last_may_be_refused(fake_server: FakeServer, tmp_path: Path, status: int) -> None:
    def answer(asked: Request) -> Response:
        page = int(asked.query["page"])
        return as_json([{"id": page}]) if page < 3 else Response(b"{}", status)

    source = {"type": "api", "request": {"url": fake_server.on("/x", answer)}}
    found = read({**source, "paginate": {"style": "page", "ends_on": [400, 404]}}, Recorder().client(), tmp_path)
    assert records(found) == [{"id": 1}, {"id": 2}]
    with pytest.raises(RefusedError):
        read({**source, "paginate": {"style": "page", "ends_on": [403]}}, Recorder().client(), tmp_path)


def test_the_first_page_may_not(fake_server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        answered(fake_server, tmp_path, Response(b"{}", 404), paginate={"style": "page", "ends_on": [404]})


def test_a_run_that_goes_on_at_the_page_past_the_last_ends(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Response:
        return as_json([{"id": 1}]) if asked.query["page"] == "1" else Response(b"{}", 404)

    source = {
        "type": "api",
        "request": {"url": fake_server.on("/x", answer)},
        "paginate": {"style": "page", "ends_on": [404]},
    }
    first, _ = read(source, Recorder().client(), tmp_path)
    assert records(read(source, Recorder().client(), tmp_path, position_at(first.following))) == []


def test_a_cursor_in_a_header(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Response:
        at = asked.query.get("cursor", "a")
        headers = {"X-Next": "b"} if at == "a" else {}
        return Response(b'[{"id": "%s"}]' % at.encode(), headers=headers)

    url = fake_server.on("/x", answer)
    source = {"type": "api", "request": {"url": url}, "paginate": {"style": "cursor", "next_header": "X-Next"}}
    assert records(read(source, Recorder().client(), tmp_path)) == [{"id": "a"}, {"id": "b"}]


INCREMENTAL = {"field": "at", "lookback": "1h"}


def test_since_in_a_parameter(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.json("/x", [{"id": 1, "at": "2026-01-01T10:00:00Z"}])
    request = {"url": url, "params": {"$filter": "modified gt {since}", "top": 5}}
    source = {"type": "api", "request": request, "incremental": INCREMENTAL}
    read(source, Recorder().client(), tmp_path)
    read(source, Recorder().client(), tmp_path, Position(watermark="2026-01-01T10:00:00Z"))
    initial = {**INCREMENTAL, "initial": "1970-01-01T00:00:00Z"}
    read({**source, "incremental": initial}, Recorder().client(), tmp_path)
    assert [asked.query.get("$filter") for asked in fake_server.asked] == [
        None,
        "modified gt 2026-01-01T09:00:00Z",
        "modified gt 1970-01-01T00:00:00Z",
    ]
    assert {asked.query["top"] for asked in fake_server.asked} == {"5"}


def test_since_in_a_body(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.json("/x", [{"id": 1, "at": "2026-01-01T10:00:00Z"}])
    body = {"filter": {"modified": {"gt": "{since}"}, "open": True}, "fields": ["a", None]}
    source = {"type": "api", "request": {"url": url, "body": body}, "incremental": INCREMENTAL}
    read(source, Recorder().client(), tmp_path)
    read(source, Recorder().client(), tmp_path, Position(watermark="2026-01-01T10:00:00Z"))
    assert [json.loads(asked.body)["filter"] for asked in fake_server.asked] == [
        {"modified": {}, "open": True},
        {"modified": {"gt": "2026-01-01T09:00:00Z"}, "open": True},
    ]
    assert json.loads(fake_server.asked[0].body)["fields"] == ["a", None]


SUCCESS = {"records": "data", "success": "status == 'ok'"}


def test_an_answer_that_says_it_is_none_is_tried_again(runner: SourceRunner, fake_server: FakeServer) -> None:
    bad, good = {"status": "error", "message": "try later"}, {"status": "ok", "data": [{"id": 1}]}
    url = fake_server.on("/x", [as_json(bad), as_json(good)])
    runner.declare({"name": "api", "type": "api", "request": {"url": url}, **SUCCESS})
    run = runner.run("api")
    assert (run["status"], run["records_inserted"]) == ("success", 1)
    retries = runner.sql("SELECT detail ->> 'code' FROM etl_run_events WHERE event = 'retry'")
    assert retries == ["answer_refused"]


def test_an_answer_that_says_so_each_time_fails_the_run(runner: SourceRunner, fake_server: FakeServer) -> None:
    url = fake_server.json("/x", {"status": "error", "message": "no such account"})
    runner.declare({"name": "api", "type": "api", "request": {"url": url}, **SUCCESS})
    run = runner.run("api")
    assert (run["status"], run["error"]["code"]) == ("failed", "answer_refused")
    assert "no such account" in run["error"]["message"]
    assert len(fake_server.asked) == runner.settings.max_retries + 1


def test_the_first_failure_waits(fake_server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(WaitError) as wait:
        answered(fake_server, tmp_path, {"status": "error"}, **SUCCESS)
    assert isinstance(wait.value.cause, FetchError)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"columns": ["a"], "header": True}, "`columns` and `header`"),
        ({"single": True, "key_as": "id"}, "`key_as` and `single`"),
        ({"columns": []}, "`columns` is an empty list"),
        ({"format": "ndjson", "records": "data"}, "`records`"),
        ({"format": "ndjson", "single": True}, "`single`"),
        ({"format": "ndjson", "paginate": {"style": "next_url"}}, "`paginate.next`"),
        ({"format": "ndjson", "paginate": {"style": "page", "more": "more"}}, "`paginate.more`"),
        ({"success": "status =="}, "`success`"),
        ({"incremental": {"field": "at"}}, "either `param`, or {since}"),
        ({"incremental": {"field": "at", "param": "since", "initial": "x"}}, "`incremental.initial`"),
        ({"paginate": {"style": "cursor"}}, "exactly one of `next` and `next_header`"),
        ({"paginate": {"style": "cursor", "next": "a", "next_header": "b"}}, "exactly one of"),
        ({"paginate": {"style": "page", "ends_on": [200]}}, "ends_on"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_name(source: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse({"name": "a", "type": "api", "request": {"url": "https://x/y"}, **source})
    assert named in refusal.value.message
