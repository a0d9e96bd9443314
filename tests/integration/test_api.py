"""REST APIs, against a server of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.outside import Answered, Asked, Outside, as_json
from etl.errors import FormatError, RefusedError
from etl.records import Position
from tests.reading import Recorder, read, records


def paged(outside: Outside, answer: Callable[[Asked], Any]) -> str:
    return outside.on("/items", lambda asked: as_json(answer(asked)))


def test_pages_by_number(outside: Outside, tmp_path: Path) -> None:
    url = paged(outside, lambda asked: [{"id": asked.query["p"]}] if int(asked.query["p"]) < 4 else [])
    pages = read(
        {"type": "api", "request": {"url": url}, "paginate": {"style": "page", "param": "p"}},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == [{"id": "1"}, {"id": "2"}, {"id": "3"}]


def test_pages_by_offset(outside: Outside, tmp_path: Path) -> None:
    data = [{"id": n} for n in range(5)]

    def answer(asked: Asked) -> Any:
        start = int(asked.query["offset"])
        return data[start : start + int(asked.query["limit"])]

    paginate = {"style": "offset", "limit": 2}
    pages = read(
        {"type": "api", "request": {"url": paged(outside, answer)}, "paginate": paginate}, Recorder().client(), tmp_path
    )
    assert records(pages) == data


def test_pages_by_cursor_in_the_body(outside: Outside, tmp_path: Path) -> None:
    following = {None: "b", "b": "c", "c": None}

    def answer(asked: Asked) -> Any:
        at = asked.query.get("cursor")
        return {"items": [] if at == "b" else [{"id": at}], "meta": {"next": following[at]}}

    document = {"type": "api", "records": "items", "paginate": {"style": "cursor", "next": "meta.next"}}
    pages = read({**document, "request": {"url": paged(outside, answer)}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"id": None}, {"id": "c"}]


def test_pages_by_next_address(outside: Outside, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        at = int(asked.query.get("at", 0))
        return {"items": [{"id": at}], "next": f"?at={at + 1}" if at < 2 else None}

    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    pages = read({**document, "request": {"url": paged(outside, answer)}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_pages_by_link_header(outside: Outside, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answered:
        at = int(asked.query.get("at", 0))
        link = {"Link": f'</items?at={at + 1}>; rel="next"'} if at < 2 else {}
        return replace(as_json([{"id": at}]), headers=link)

    pages = read(
        {"type": "api", "request": {"url": outside.on("/items", answer)}, "paginate": {"style": "link_header"}},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_a_loop_of_pages_is_a_failure(outside: Outside, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        return {"items": [{"id": 1}], "next": "?at=a" if asked.query.get("at") == "b" else "?at=b"}

    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    with pytest.raises(FormatError, match="loop"):
        read({**document, "request": {"url": paged(outside, answer)}}, Recorder().client(), tmp_path)


def test_the_next_page_must_be_of_the_same_origin(outside: Outside, tmp_path: Path) -> None:
    url = outside.json("/items", {"items": [{"id": 1}], "next": "http://example.com/x"})
    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    with pytest.raises(RefusedError) as caught:
        read({**document, "request": {"url": url}}, Recorder().client(), tmp_path)
    assert caught.value.code == "foreign_page"


def test_too_many_pages_is_a_failure(outside: Outside, tmp_path: Path) -> None:
    url = paged(outside, lambda asked: [{"id": asked.query["page"]}])
    with pytest.raises(FormatError) as caught:
        read(
            {"type": "api", "request": {"url": url}, "paginate": {"style": "page", "max_pages": 3}},
            Recorder().client(),
            tmp_path,
        )
    assert caught.value.code == "too_many_pages"
    assert len(outside.asked) == 3


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"error": "no"}', b'{"items": 3}', b"[NaN]", b""])
def test_what_is_no_list_of_records_is_a_failure(outside: Outside, tmp_path: Path, body: bytes) -> None:
    url = outside.on("/items", Answered(body))
    with pytest.raises(FormatError):
        read({"type": "api", "request": {"url": url}, "records": "items"}, Recorder().client(), tmp_path)


def test_entries_that_are_no_objects_are_bad_records(outside: Outside, tmp_path: Path) -> None:
    url = outside.json("/items", [{"id": 1}, None, 3])
    found = records(read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path))
    assert [getattr(record, "rule", None) for record in found] == [None, "not_an_object", "not_an_object"]


def test_incremental_asks_from_the_watermark_less_the_lookback(outside: Outside, tmp_path: Path) -> None:
    url = outside.json(
        "/items", [{"id": 1, "at": "2026-01-01T10:00:00Z"}, {"id": 2, "at": "2026-01-01T09:00:00+00:00"}]
    )
    incremental = {"field": "at", "param": "since", "lookback": "1h"}
    document = {"type": "api", "request": {"url": url}, "incremental": incremental}
    (page,) = read(document, Recorder().client(), tmp_path)
    assert page.watermark == "2026-01-01T10:00:00Z"
    assert "since" not in outside.asked[0].query
    read(document, Recorder().client(), tmp_path, Position(watermark=page.watermark))
    assert outside.asked[1].query["since"] == "2026-01-01T09:00:00Z"
