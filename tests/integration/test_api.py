"""REST APIs, against a server of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etl import payload
from etl.declare.source import parse
from etl.errors import FormatError, RefusedError
from etl.extract import open_source, target_for
from etl.records import Kept, Position
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.reading import Recorder, after, context, mark_of, position_at, read, records


def paged(fake_server: FakeServer, answer: Callable[[Request], Any]) -> str:
    return fake_server.on("/items", lambda asked: as_json(answer(asked)))


def test_pages_by_number(fake_server: FakeServer, tmp_path: Path) -> None:
    url = paged(fake_server, lambda asked: [{"id": asked.query["p"]}] if int(asked.query["p"]) < 4 else [])
    pages = read(
        {"type": "api", "request": {"url": url}, "paginate": {"style": "page", "param": "p"}},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == [{"id": "1"}, {"id": "2"}, {"id": "3"}]


def test_pages_by_offset(fake_server: FakeServer, tmp_path: Path) -> None:
    data = [{"id": n} for n in range(5)]

    def answer(asked: Request) -> Any:
        start = int(asked.query["offset"])
        return data[start : start + int(asked.query["limit"])]

    paginate = {"style": "offset", "limit": 2}
    pages = read(
        {"type": "api", "request": {"url": paged(fake_server, answer)}, "paginate": paginate},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == data


def test_pages_by_cursor_in_the_body(fake_server: FakeServer, tmp_path: Path) -> None:
    following = {None: "b", "b": "c", "c": None}

    def answer(asked: Request) -> Any:
        at = asked.query.get("cursor")
        return {"items": [] if at == "b" else [{"id": at}], "meta": {"next": following[at]}}

    document = {"type": "api", "records": "items", "paginate": {"style": "cursor", "next": "meta.next"}}
    pages = read({**document, "request": {"url": paged(fake_server, answer)}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"id": None}, {"id": "c"}]


def test_pages_by_next_address(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Any:
        at = int(asked.query.get("at", 0))
        return {"items": [{"id": at}], "next": f"?at={at + 1}" if at < 2 else None}

    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    pages = read({**document, "request": {"url": paged(fake_server, answer)}}, Recorder().client(), tmp_path)
    assert records(pages) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_pages_by_link_header(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Response:
        at = int(asked.query.get("at", 0))
        link = {"Link": f'</items?at={at + 1}>; rel="next"'} if at < 2 else {}
        return replace(as_json([{"id": at}]), headers=link)

    pages = read(
        {"type": "api", "request": {"url": fake_server.on("/items", answer)}, "paginate": {"style": "link_header"}},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_a_loop_of_pages_is_a_failure(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Any:
        return {"items": [{"id": 1}], "next": "?at=a" if asked.query.get("at") == "b" else "?at=b"}

    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    with pytest.raises(FormatError, match="loop"):
        read({**document, "request": {"url": paged(fake_server, answer)}}, Recorder().client(), tmp_path)


def test_the_next_page_must_be_of_the_same_origin(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.json("/items", {"items": [{"id": 1}], "next": "http://example.com/x"})
    document = {"type": "api", "records": "items", "paginate": {"style": "next_url"}}
    with pytest.raises(RefusedError) as caught:
        read({**document, "request": {"url": url}}, Recorder().client(), tmp_path)
    assert caught.value.code == "foreign_page"


def test_too_many_pages_is_a_failure(fake_server: FakeServer, tmp_path: Path) -> None:
    url = paged(fake_server, lambda asked: [{"id": asked.query["page"]}])
    with pytest.raises(FormatError) as caught:
        read(
            {"type": "api", "request": {"url": url}, "paginate": {"style": "page", "max_pages": 3}},
            Recorder().client(),
            tmp_path,
        )
    assert caught.value.code == "too_many_pages"
    assert len(fake_server.asked) == 3


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"error": "no"}', b'{"items": 3}', b"[NaN]", b""])
def test_what_is_no_list_of_records_is_a_failure(fake_server: FakeServer, tmp_path: Path, body: bytes) -> None:
    url = fake_server.on("/items", Response(body))
    with pytest.raises(FormatError):
        read({"type": "api", "request": {"url": url}, "records": "items"}, Recorder().client(), tmp_path)


def test_entries_that_are_no_objects_are_bad_records(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.json("/items", [{"id": 1}, None, 3])
    found = records(read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path))
    assert [getattr(record, "rule", None) for record in found] == [None, "not_an_object", "not_an_object"]


def test_incremental_asks_from_the_watermark_less_the_lookback(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.json(
        "/items", [{"id": 1, "at": "2026-01-01T10:00:00Z"}, {"id": 2, "at": "2026-01-01T09:00:00+00:00"}]
    )
    incremental = {"field": "at", "param": "since", "lookback": "1h"}
    document = {"type": "api", "request": {"url": url}, "incremental": incremental}
    (page,) = read(document, Recorder().client(), tmp_path)
    assert page.watermark == "2026-01-01T10:00:00Z"
    assert "since" not in fake_server.asked[0].query
    read(document, Recorder().client(), tmp_path, Position(watermark=page.watermark))
    assert fake_server.asked[1].query["since"] == "2026-01-01T09:00:00Z"


def test_more_ends_the_paging(fake_server: FakeServer, tmp_path: Path) -> None:
    url = paged(fake_server, lambda asked: {"items": [{"id": asked.query["page"]}], "page": int(asked.query["page"])})
    paginate = {"style": "page", "more": "page < `3`"}
    pages = read(
        {"type": "api", "request": {"url": url}, "records": "items", "paginate": paginate},
        Recorder().client(),
        tmp_path,
    )
    assert records(pages) == [{"id": "1"}, {"id": "2"}, {"id": "3"}]
    assert len(fake_server.asked) == 3


def test_a_short_page_ends_the_paging_where_it_is_said_to(fake_server: FakeServer, tmp_path: Path) -> None:
    data = [{"id": n} for n in range(5)]
    url = paged(fake_server, lambda asked: data[int(asked.query["offset"]) :][:2])
    paginate = {"style": "offset", "limit": 2, "short_page_ends": True}
    assert (
        records(read({"type": "api", "request": {"url": url}, "paginate": paginate}, Recorder().client(), tmp_path))
        == data
    )
    assert len(fake_server.asked) == 3


def test_pages_by_a_value_in_the_body_of_a_post(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Any:
        number = payload.decode(asked.body)["page"]["number"]
        return [{"id": number}] if number < 3 else []

    document = {
        "type": "api",
        "request": {"url": paged(fake_server, answer), "body": {"query": "all", "page": {"size": 1}, "key": "${KEY}"}},
        "paginate": {"style": "page", "param": "page.number"},
    }
    assert records(read(document, Recorder().client(), tmp_path)) == [{"id": 1}, {"id": 2}]
    assert payload.decode(fake_server.asked[0].body) == {
        "query": "all",
        "page": {"size": 1, "number": 1},
        "key": "s3cret",
    }


def test_a_post_is_not_sent_elsewhere(fake_server: FakeServer, tmp_path: Path) -> None:
    with FakeServer() as other:
        for status in (302, 307):
            url = fake_server.on("/a", Response(status=status, headers={"Location": other.json("/b", [])}))
            with pytest.raises(RefusedError) as caught:
                read({"type": "api", "request": {"url": url, "body": {"key": "${KEY}"}}}, Recorder().client(), tmp_path)
            assert caught.value.code == "redirected_post"
        assert other.asked == []


def test_a_server_that_ignores_the_paging_is_noticed(fake_server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read(
            {"type": "api", "request": {"url": fake_server.json("/a", [{"id": 1}])}, "paginate": {"style": "page"}},
            Recorder().client(),
            tmp_path,
        )
    assert caught.value.code == "paging_loop"
    assert len(fake_server.asked) == 2


def test_a_cursor_that_the_server_has_forgotten_starts_the_run_anew_once(
    fake_server: FakeServer, tmp_path: Path
) -> None:
    def answer(asked: Request) -> Response:
        if asked.query.get("cursor") == "old":
            return Response(status=410)
        return as_json({"items": [{"id": 1}], "next": None})

    url = fake_server.on("/a", answer)
    document = {
        "type": "api",
        "request": {"url": url},
        "records": "items",
        "paginate": {"style": "cursor", "next": "next"},
        "incremental": {"field": "id", "param": "since"},
    }
    seen = Recorder()
    position = Position({"number": 7, "at": "old", "since": "5"}, watermark="9")
    assert records(read(document, seen.client(), tmp_path, position)) == [{"id": 1}]
    assert seen.warnings == ["cursor_expired"]
    assert fake_server.asked[1].query == {"since": "5"}
    with pytest.raises(RefusedError):
        read(document, seen.client(), tmp_path, Position({"number": 2, "at": "old", "restarted": True}))


@pytest.mark.parametrize(("missing", "count"), [("include", 3), ("exclude", 2), ("fail", 0)])
def test_records_without_a_cursor_value(fake_server: FakeServer, tmp_path: Path, missing: str, count: int) -> None:
    url = fake_server.json("/a", [{"id": 1, "at": 9}, {"id": 2}, {"id": 3, "at": "10"}])
    incremental = {"field": "at", "param": "since", "missing": missing}
    document = {"type": "api", "request": {"url": url}, "incremental": incremental}
    if missing == "fail":
        with pytest.raises(FormatError):
            read(document, Recorder().client(), tmp_path)
        return
    pages = read(document, Recorder().client(), tmp_path)
    assert len(records(pages)) == count
    assert pages[0].watermark == "10"


def test_an_answer_without_the_list_can_be_allowed(fake_server: FakeServer, tmp_path: Path) -> None:
    document = {
        "type": "api",
        "request": {"url": fake_server.json("/a", {})},
        "records": "items",
        "allow_missing": True,
    }
    assert records(read(document, Recorder().client(), tmp_path)) == []


# Large answers


def large(record: bytes, count: int, head: bytes = b"[", tail: bytes = b"]") -> Response:
    return Response(head + b",".join([record] * count) + tail)


@pytest.mark.parametrize(
    ("records_at", "head", "tail"),
    [
        ("@", b"[", b"]"),
        ("items", b'{"items": [', b'], "next": null}'),
        ("data.items", b'{"other": [{"items": [1]}], "data": {"n": [[]], "items": [', b']}, "x": {"items": 3}}'),
    ],
)
def test_large_answers_are_read_in_pieces(
    fake_server: FakeServer, tmp_path: Path, records_at: str, head: bytes, tail: bytes
) -> None:
    record = b'{"id": 1, "price": 1.10, "name": "\\u00e4\\ud83d\\ude00", "more": {"items": [1, {"a": null}]}}'
    url = fake_server.on("/a", large(record, 20_000, head, tail))
    found = records(
        read({"type": "api", "request": {"url": url}, "records": records_at}, Recorder().client(), tmp_path)
    )
    assert len(found) == 20_000
    assert found[0] == found[-1] == payload.decode(record)
    assert str(found[0]["price"]) == "1.10"


def test_a_large_answer_says_where_to_go_on(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Response:
        tail = b'], "meta": {"next": "b"}}' if "cursor" not in asked.query else b'], "meta": {"next": null}}'
        return large(b'{"id": "%s"}' % asked.query.get("cursor", "a").encode(), 100_000, b'{"items": [', tail)

    document = {"type": "api", "records": "items", "paginate": {"style": "cursor", "next": "meta.next"}}
    pages = read({**document, "request": {"url": fake_server.on("/a", answer)}}, Recorder().client(), tmp_path)
    assert [records([page])[-1]["id"] for page in pages] == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (large(b'{"id": 1}', 200_000, tail=b""), "bad_json"),
        (large(b'{"id": NaN}', 200_000), "bad_json"),
        (large(b"[" * 100 + b"]" * 100, 10_000), "too_deep"),
        (Response(b"[" * 2_000_000), "too_deep"),
        (large(b'{"id": 1}', 200_000, b'{"other": [', b"]}"), "no_records"),
        (large(b'{"id": 1}', 200_000, b'{"items": {"a": [', b"]}}"), "no_records"),
        (large(b'{"id": 1}', 200_000, b'{"items": [], "items": [', b"]}"), "no_records"),
    ],
)
def test_a_large_answer_that_is_broken_gives_nothing(
    fake_server: FakeServer, tmp_path: Path, answer: Response, code: str
) -> None:
    document = {"type": "api", "request": {"url": fake_server.on("/a", answer)}, "records": "items"}
    if answer.body.startswith(b"["):
        document["records"] = "@"
    with pytest.raises(FormatError) as caught:
        read(document, Recorder().client(), tmp_path)
    assert caught.value.code == code


def test_half_a_pair_of_surrogates_is_not_lost_in_a_large_answer(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", large(b'{"id": "\\ud83dx"}', 100_000))
    found = records(read({"type": "api", "request": {"url": url}}, Recorder().client(), tmp_path))
    assert found[0]["id"] == "\ud83dx"


def test_keys_with_dots_are_not_taken_for_paths(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", large(b'{"id": 1}', 200_000, b'{"a.b": [{"id": 2}], "a": {"b": [', b"]}}"))
    found = records(read({"type": "api", "request": {"url": url}, "records": "a.b"}, Recorder().client(), tmp_path))
    assert len(found) == 200_000
    assert found[0] == {"id": 1}


def test_a_small_nesting_bomb_is_refused(fake_server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        read(
            {"type": "api", "request": {"url": fake_server.on("/a", Response(b"[" * 200_000))}},
            Recorder().client(),
            tmp_path,
        )


# Answers that have not changed


def with_marks(body: Any, **marks: str) -> Callable[[Request], Response]:
    def answer(asked: Request) -> Response:
        known = asked.headers.get("if-none-match"), asked.headers.get("if-modified-since")
        if any(known) and known == (marks.get("ETag"), marks.get("Last-Modified")):
            return Response(status=304, headers={**marks, "Cache-Control": "max-age=60"})
        return replace(as_json(body), headers=marks)

    return answer


@pytest.mark.parametrize(
    "marks", [{"ETag": 'W/"a b"'}, {"Last-Modified": "Mon, 01  Jan 2024 odd"}, {"ETag": "x", "Last-Modified": "y"}, {}]
)
def test_an_unchanged_answer_costs_one_request_and_gives_nothing(
    fake_server: FakeServer, tmp_path: Path, marks: dict[str, str]
) -> None:
    document = {"type": "api", "request": {"url": fake_server.on("/a", with_marks([{"id": 1}], **marks))}}
    (first,) = read(document, Recorder().client(), tmp_path)
    seen = Recorder()
    (second,) = read(document, seen.client(), tmp_path, checkpoint=after(first))
    assert len(first.records) == 1
    assert len(second.records) == 0
    assert second.kept == first.kept
    assert len(fake_server.asked) == 2
    assert seen.fresh == [60 if marks else 0]


def test_a_mark_that_the_server_no_longer_gives_is_forgotten(fake_server: FakeServer, tmp_path: Path) -> None:
    document = {"type": "api", "request": {"url": fake_server.on("/a", with_marks([{"id": 1}], ETag="x"))}}
    (first,) = read(document, Recorder().client(), tmp_path)
    fake_server.json("/a", [{"id": 2}])
    (second,) = read(document, Recorder().client(), tmp_path, checkpoint=after(first))
    assert records([second]) == [{"id": 2}]
    assert mark_of(second) is None


def test_marks_are_good_for_the_same_request_only(fake_server: FakeServer, tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "type": "api",
        "request": {"url": fake_server.on("/a", with_marks([{"id": 1}], ETag="x"))},
    }
    (first,) = read(document, Recorder().client(), tmp_path)
    document["request"]["params"] = {"a": 1}
    (second,) = read(document, Recorder().client(), tmp_path, checkpoint=after(first))
    assert "if-none-match" not in fake_server.asked[1].headers
    assert len(second.records) == 1


def test_a_run_of_several_pages_leaves_no_mark(fake_server: FakeServer, tmp_path: Path) -> None:
    url = paged(fake_server, lambda asked: [{"id": asked.query["page"]}] if int(asked.query["page"]) < 3 else [])
    pages = read({"type": "api", "request": {"url": url}, "paginate": {"style": "page"}}, Recorder().client(), tmp_path)
    assert [page.kept for page in pages] == [Kept()] * 3


def test_a_304_that_was_not_asked_for_is_a_failure(fake_server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read(
            {"type": "api", "request": {"url": fake_server.on("/a", Response(status=304))}},
            Recorder().client(),
            tmp_path,
        )
    assert caught.value.code == "http_304"


@pytest.mark.parametrize(
    ("hops", "moved"), [((301, 308), True), ((301, 302), False), ((302,), False), ((307, 301), False)]
)
def test_only_a_chain_of_permanent_redirects_is_a_move(
    fake_server: FakeServer, tmp_path: Path, hops: tuple[int, ...], moved: bool
) -> None:
    for number, status in enumerate(hops):
        fake_server.on(f"/{number}", Response(status=status, headers={"Location": f"/{number + 1}"}))
    fake_server.json(f"/{len(hops)}", [])
    seen = Recorder()
    read({"type": "api", "request": {"url": fake_server.url + "/0"}}, seen.client(), tmp_path)
    assert seen.moved == [f"{fake_server.url}/{len(hops)}" if moved else None]


@pytest.mark.parametrize("following", ['"%s"' % ("x" * 100_000), '"\\u0000"', '"\\ud800"'])
def test_a_cursor_that_cannot_be_kept_ends_the_run_by_name(
    fake_server: FakeServer, tmp_path: Path, following: str
) -> None:
    url = fake_server.on("/a", Response(b'{"items": [{"id": 1}], "next": %b}' % following.encode()))
    document = {"type": "api", "records": "items", "paginate": {"style": "cursor", "next": "next"}}
    found: list[Any] = []
    source = parse({"name": "a", **document, "request": {"url": url}})
    with pytest.raises(FormatError) as caught:
        for page in open_source(source, target_for(source, {}), context(Recorder().client(), tmp_path)).pages(
            Position()
        ):
            found += page.records
    assert caught.value.code == "bad_page"
    assert found == [{"id": 1}]


def test_a_cursor_in_a_post_keeps_its_digits(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Response:
        after = payload.decode(asked.body).get("search_after")
        return Response(
            b'{"items": [{"id": 1}], "next": [1.50, "a"]}' if after is None else b'{"items": [], "next": null}'
        )

    document = {
        "type": "api",
        "request": {"url": fake_server.on("/a", answer), "body": {}},
        "records": "items",
        "paginate": {"style": "cursor", "next": "next", "param": "search_after"},
    }
    read(document, Recorder().client(), tmp_path)
    assert fake_server.asked[1].body == b'{"search_after":[1.50,"a"]}'


@pytest.mark.parametrize("value", ["infinity", "nan", "soon"])
def test_a_cursor_value_has_to_mean_something(fake_server: FakeServer, tmp_path: Path, value: str) -> None:
    incremental = {"field": "at", "param": "since"}
    url = fake_server.json("/a", [{"id": 1, "at": value}])
    with pytest.raises(FormatError) as caught:
        read({"type": "api", "request": {"url": url}, "incremental": incremental}, Recorder().client(), tmp_path)
    assert caught.value.code == "bad_cursor"


def test_a_large_answer_may_say_with_an_object_that_there_is_more(fake_server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Request) -> Response:
        number = int(asked.query["page"])
        tail = b'], "more": {"after": 2}}' if number == 1 else b'], "more": {}}'
        return large(b'{"id": %d}' % number, 150_000, b'{"items": [', tail)

    paginate = {"style": "page", "more": "more"}
    document = {
        "type": "api",
        "request": {"url": fake_server.on("/a", answer)},
        "records": "items",
        "paginate": paginate,
    }
    assert len(read(document, Recorder().client(), tmp_path)) == 2


def test_a_large_page_is_fetched_once_however_many_slices_it_takes(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/a", replace(large(b'{"id": 1}', 200_000), headers={"ETag": "x"}))
    document = {"type": "api", "request": {"url": url}}
    source = parse({"name": "a", **document})
    extractor = open_source(source, target_for(source, {}), context(Recorder().client(), tmp_path))
    page = next(iter(extractor.pages(Position())))
    position = position_at(page.cursor, done=150_000, validator=page.validator)
    del extractor
    (resumed,) = read(document, Recorder().client(), tmp_path, position)
    assert (len(resumed.records), resumed.validator) == (200_000, page.validator)
    assert mark_of(resumed) == "x"
    assert len(fake_server.asked) == 1
    assert not list(tmp_path.glob("scratch*"))
