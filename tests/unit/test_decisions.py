"""The pure decisions: what is kept, what is mapped, how a run ends, how long to wait."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from etl import payload
from etl.declare.request import fill
from etl.declare.source import fingerprint, parse
from etl.errors import ConfigError, FormatError, RecordError
from etl.extract.batching import MAX_BYTES, Batcher
from etl.extract.pager import next_link
from etl.mapping.mapper import Mapper
from etl.records import BadRecord, Counts, Page, Position, RawBatch, RawRecord, StoredRecord
from etl.runs.backoff import LONGEST_BACKOFF, wait_before
from etl.runs.changes import (
    Changes,
    InFlightIds,
    KnownContent,
    OpenCase,
    candidates,
    changed_records,
    single_valued,
)
from etl.runs.outcome import Failure, Status, judge, must_stop


def mapper(**more: object) -> Mapper:
    return Mapper(parse({"name": "a", "type": "csv", "file": "x", **more}))


def stored(record: dict[str, Any], key: str | None = "1") -> StoredRecord:
    return StoredRecord(1, datetime(2026, 1, 1, tzinfo=UTC), key, b"h", payload.encode(record).decode())


def raw(key: str | None, content: str) -> RawRecord:
    return RawRecord(key, content.encode(), payload.digest(content.encode()))


# --- payload


def test_json_keeps_numbers_and_orders_keys() -> None:
    body = b'{"b": 1.10, "a": 12345678901234567890.5}'
    assert payload.encode(payload.decode(body)) == b'{"a":12345678901234567890.5,"b":1.10}'


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"{", b"", b"[" * 100_000, b"\xff"])
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError):
        payload.decode(body)


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", {"\x00": 1}])
def test_what_jsonb_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(RecordError):
        payload.encode({"k": value})


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(RecordError, match="range"):
        payload.encode(payload.decode(b"[1e5000]"))


def test_text_that_only_looks_like_an_escape_is_kept() -> None:
    assert payload.encode({"k": "\\u0000 5E"}) == b'{"k":"\\\\u0000 5E"}'


# --- mapping


def test_the_usual_names_are_recognised() -> None:
    record = {"item_id": 7, "product_name": "x", "summary": "s", "cost": "2", "qty": "3", "date": "2026-01-01"}
    record |= {"keywords": "a,b", "link": "http://x", "thumbnail": "http://y", "colour": "red"}
    (staged,), rejects = mapper().normalize([stored(record)])
    item = staged.item
    assert not rejects
    assert (item.title, item.description, item.amount, item.quantity) == ("x", "s", 2, 3)
    assert (item.tags, item.url, item.image_url) == (["a", "b"], "http://x", "http://y")
    assert item.metadata == {"colour": "red"}


def test_an_exact_key_wins_over_a_path() -> None:
    record = {"a.b": "key", "a": {"b": "path", "c": 1}, "id": 1}
    (staged,), _ = mapper(map={"title": "a.b"}).normalize([stored(record)])
    assert staged.item.title == "key"
    del record["a.b"]
    (staged,), _ = mapper(map={"title": "a.b"}).normalize([stored(record)])
    assert staged.item.title == "path"
    assert staged.item.metadata == {"a": {"c": 1}, "id": 1}


def test_a_value_that_does_not_fit_names_field_rule_and_value() -> None:
    staged, (reject,) = mapper().normalize([stored({"id": 1, "price": "dear"}), stored({"id": 2, "price": "1"})])
    assert len(staged) == 1
    assert (reject.field, reject.rule, reject.value) == ("amount", "type", "dear")


def taken(record: dict[str, Any], **source: Any) -> RawRecord:
    (raw,), bad = mapper(**source).take(iter([record]))
    assert not bad
    return raw


def test_identities() -> None:
    assert taken({"id": " 5 "}).external_id == "5"
    assert taken({"name": "x"}).external_id is None
    assert taken({"a": 1, "b": "x"}, identity=["a", "b"]).external_id == '[1,"x"]'
    assert taken({"a": 1}, identity=["a", "b"]).external_id is None
    assert taken({"a": 1}, identity="content").external_id != taken({"a": 2}, identity="content").external_id
    assert taken({"id": 1, "t": 1}, ignore=["t"]).content_hash == taken({"id": 1}).content_hash


def take_all(records: list[dict[str, Any] | BadRecord]) -> tuple[list[RawRecord], list[BadRecord]]:
    source, maps = iter(records), mapper()
    groups = list(iter(lambda: maps.take(source), ([], [])))
    return [raw for good, _ in groups for raw in good], [raw for _, bad in groups for raw in bad]


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize(
    ("odd", "rule"),
    [
        ({"id": "a\0b"}, "nul"),
        ({"id": 1, "n": Decimal("1E+5000")}, "number_range"),
        ({"id": 1, "n": 10**3000}, "number_range"),
        ({"id": 1, "t": "\ud800"}, "storable"),
        ({"id": 1, "deep": nested(64)}, "depth"),
    ],
)
def test_one_that_cannot_be_stored_is_alone_in_that(odd: dict[str, Any], rule: str) -> None:
    plain: list[dict[str, Any] | BadRecord] = [
        {"id": number, "list": nested(63), "e": "SIZE-4", "long": "x" * number * 100} for number in range(50)
    ]
    cut = BadRecord(b"x", "", "too_long", "cut")
    good, bad = take_all([*plain, odd, cut, {}, *plain])
    assert [r.rule for r in bad] == [rule, "too_long"]
    assert good[:50] == good[51:] == [taken(record) for record in plain if isinstance(record, dict)]
    good, bad = take_all([odd])
    assert (good, bad[0].rule) == ([], rule)


def test_large_records_are_taken_one_by_one() -> None:
    records = iter([{"id": number, "t": "x" * 100_000} for number in range(10)])
    assert len(mapper().take(records)[0]) == 1
    assert len(list(records)) == 9


# --- changes


def digest_of(content: str) -> bytes:
    return payload.digest(content.encode())


def changed(records: list[RawRecord], known: KnownContent) -> Changes:
    batch = RawBatch(records, [], Position(), 1, 1)
    return changed_records(candidates(batch, InFlightIds({}), ignores=False), known)


def test_an_id_that_varies_in_the_batch_is_kept_whole() -> None:
    records = [raw("1", "a"), raw("2", "x"), raw("1", "b"), raw("2", "x")]
    candidates = single_valued(records)
    assert set(candidates) == {"2"}
    changes = changed(records, KnownContent(served={"2": digest_of("x")}))
    assert [r.external_id for r in changes.records] == ["1", "1"]
    assert (changes.unchanged, changes.duplicate) == (1, 1)


def test_what_this_run_has_written_is_a_duplicate() -> None:
    changes = changed([raw("1", "a")], KnownContent(served={"1": digest_of("a")}, written=frozenset({"1"})))
    assert (changes.records, changes.unchanged, changes.duplicate) == ([], 0, 1)


def test_what_is_in_quarantine_fails_again() -> None:
    records = [raw("1", "a"), raw("1", "a"), raw("2", "b")]
    changes = changed(records, KnownContent(cases=[OpenCase(digest_of("a"), "1", written=False)]))
    assert ([r.external_id for r in changes.records], changes.failed_again, changes.duplicate) == (["2"], 1, 1)


def test_what_differs_from_what_is_served_or_in_flight_is_stored() -> None:
    served = KnownContent(served={"1": digest_of("other")})
    assert [r.external_id for r in changed([raw("1", "a")], served).records] == ["1"]
    batch = RawBatch([raw("1", "a"), raw("2", "b")], [], Position(), 1, 1)
    assert candidates(batch, InFlightIds({3: frozenset({"1"})}), ignores=False).ids == ["2"]


def test_an_unstorable_record_in_quarantine_is_not_put_there_again() -> None:
    bad = [BadRecord(b"x", "", "csv", "m"), BadRecord(b"y", "", "csv", "m")]
    found = candidates(RawBatch([], bad, Position(), 1, 1), InFlightIds({}), ignores=False)
    changes = changed_records(found, KnownContent(cases=[OpenCase(payload.digest(b"x"), None, written=False)]))
    assert [one.raw for one in changes.rejected] == [b"y"]


def test_a_case_of_another_id_with_the_same_content_is_not_met() -> None:
    known = KnownContent(cases=[OpenCase(digest_of("a"), "9", written=False)])
    assert [r.external_id for r in changed([raw("1", "a")], known).records] == ["1"]


# --- batching


def pages(*sizes: int) -> list[Page]:
    numbers = iter(range(1000))
    last = len(sizes) - 1
    return [
        Page({"at": n}, [{"id": next(numbers)} for _ in range(size)], None if n == last else {"at": n + 1}, f"v{n}")
        for n, size in enumerate(sizes)
    ]


def ids(batches: list[Any]) -> list[list[str | None]]:
    return [[record.external_id for record in batch.records] for batch in batches]


def test_small_pages_share_a_batch_and_large_ones_fill_several() -> None:
    batches = list(Batcher(mapper(), 3).batches(pages(2, 2, 5), Position()))
    assert ids(batches) == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]
    assert [batch.position.finished for batch in batches] == [False, False, True]
    assert (batches[0].position.cursor, batches[0].position.done) == ({"at": 1}, 1)


@pytest.mark.parametrize("stop", range(3))
def test_extraction_goes_on_after_any_batch(stop: int) -> None:
    all_pages = pages(2, 2, 5)
    first = list(Batcher(mapper(), 2).batches(all_pages, Position()))
    resumed_at = first[stop].position
    rest = [page for page in all_pages if page.cursor["at"] >= resumed_at.cursor["at"]]  # type: ignore[index]
    again = list(Batcher(mapper(), 2).batches(rest, resumed_at))
    assert ids(first[: stop + 1]) + ids(again) == ids(first)


def test_a_page_that_has_changed_is_read_from_its_start() -> None:
    resumed = Position({"at": 0}, 2, "another")
    assert ids(list(Batcher(mapper(), 10).batches(pages(3), resumed))) == [["0", "1", "2"]]


def test_what_was_read_before_an_error_is_given_first() -> None:
    def breaking() -> Any:
        yield pages(2, 1)[0]
        raise FormatError("broken")

    found = []
    with pytest.raises(FormatError):
        found.extend(Batcher(mapper(), 10).batches(breaking(), Position()))
    given = Batcher(mapper(), 10).batches(breaking(), Position())
    assert ids([next(given)]) == [["0", "1"]]


def test_bad_records_count_like_others() -> None:
    page = Page({"at": 0}, [BadRecord(b"x", "", "csv", "m"), {"id": "a\x00"}, {"id": 1}], None)
    (batch,) = Batcher(mapper(), 10).batches([page], Position())
    assert (batch.extracted, len(batch.rejected), len(batch.records)) == (3, 2, 1)


def test_a_batch_of_large_records_is_cut_by_its_bytes() -> None:
    large = "x" * (MAX_BYTES // 3)
    records: list[dict[str, Any] | BadRecord] = [{"id": number, "t": large} for number in range(4)]
    page = Page({"p": 1}, [*records, BadRecord(b"y" * MAX_BYTES, "", "too_long", "cut"), *records], None)
    batches = list(Batcher(mapper(), 100).batches([page], Position()))
    assert [(len(batch.records), len(batch.rejected)) for batch in batches] == [(3, 0), (1, 1), (3, 0), (1, 0)]
    assert [batch.position.done for batch in batches] == [3, 5, 8, 0]


# --- outcome


@pytest.mark.parametrize(
    ("counts", "failure", "status"),
    [
        (Counts(), None, Status.SUCCESS),
        (Counts(extracted=2, inserted=2), None, Status.SUCCESS),
        (Counts(extracted=2, inserted=1, failed=1), None, Status.PARTIAL),
        (Counts(extracted=3, inserted=1, failed=2), None, Status.FAILED),
        (Counts(extracted=1, failed=1), None, Status.FAILED),
        (Counts(), Failure("x", "y"), Status.FAILED),
        (Counts(extracted=2, inserted=2), Failure("x", "y"), Status.PARTIAL),
    ],
)
def test_how_a_run_ends(counts: Counts, failure: Failure | None, status: Status) -> None:
    assert judge(counts, failure, 50).status is status


def test_a_run_is_judged_midway_only_with_enough_records() -> None:
    assert must_stop(Counts(extracted=999, failed=999), 50) is None
    assert must_stop(Counts(extracted=1000, failed=501, inserted=499), 50)
    assert must_stop(Counts(extracted=1000, failed=500, inserted=500), 50) is None


# --- small things


def test_waits_double_and_are_bounded() -> None:
    assert [wait_before(n, 0) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert wait_before(1, 1) == 0.5
    assert wait_before(10**6, 0) == LONGEST_BACKOFF


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<http://a/2>; rel="next"', "http://a/2"),
        ('<http://a/1>; rel="prev", <http://a/3>; rel="next last"', "http://a/3"),
        ("<http://a/2>; REL=next", "http://a/2"),
        ('<http://a/2;x=1,2>; title="b, c"; rel="next"', "http://a/2;x=1,2"),
        ('<http://a/1>; rel="prev"', None),
        ("", None),
    ],
)
def test_link_headers(header: str, expected: str | None) -> None:
    assert next_link(header) == expected


def test_secrets_are_filled_in_where_they_are_named() -> None:
    assert fill("Bearer ${A}/${B}$x", {"A": "1", "B": "2"}) == "Bearer 1/2$x"


def test_the_fingerprint_ignores_what_does_not_move_a_cursor() -> None:
    base = {"name": "a", "type": "api", "request": {"url": "http://x"}}
    assert fingerprint(parse(base)) == fingerprint(parse({**base, "timeout": "9s", "max_rejected": 1}))
    assert fingerprint(parse(base)) != fingerprint(parse({**base, "records": "data"}))


def test_a_source_document_may_not_hold_unknown_keys() -> None:
    with pytest.raises(ConfigError, match="`paginate.parm`"):
        parse({"name": "a", "type": "api", "request": {"url": "http://x"}, "paginate": {"style": "page", "parm": "p"}})
