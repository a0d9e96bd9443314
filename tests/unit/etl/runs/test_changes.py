"""Which records of a batch are kept: those that differ from what is served, in flight or in quarantine."""

from __future__ import annotations

from etl import payload
from etl.records import BadRecord, Position, RawBatch, RawRecord
from etl.runs.changes import (
    Changes,
    InFlightIds,
    KnownContent,
    OpenCase,
    candidates,
    changed_records,
    single_valued,
)


def raw(key: str | None, content: str) -> RawRecord:
    return RawRecord(key, content.encode(), payload.digest(content.encode()))


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


def test_a_rejected_record_is_stored_again_while_another_one_of_its_id_is_in_flight() -> None:
    batch = RawBatch([raw("1", "bad")], [], Position(), 1, 1)
    found = candidates(batch, InFlightIds({3: frozenset({"1"})}), ignores=False)
    changes = changed_records(found, KnownContent(cases=[OpenCase(digest_of("bad"), "1", written=False)]))
    assert ([r.payload for r in changes.records], changes.failed_again) == ([b"bad"], 0)


def test_the_last_of_two_that_differ_in_an_ignored_field_is_not_left_out() -> None:
    junk, mended = (RawRecord("1", text, b"the same") for text in (b"junk", b"mended"))
    found = candidates(RawBatch([junk, mended], [], Position(), 1, 1), InFlightIds({}), ignores=True)
    changes = changed_records(found, KnownContent(cases=[OpenCase(digest_of("junk"), "1", written=False)]))
    assert [r.payload for r in changes.records] == [b"junk", b"mended"]


def test_a_case_without_an_id_is_over_once_its_record_has_one() -> None:
    known = KnownContent(cases=[OpenCase(digest_of("a"), None, written=False, is_current=False)])
    changes = changed([raw("1", "a"), raw("2", "b")], known)
    assert len(changes.records) == 2
    assert changes.identified == (digest_of("a"),)


def test_a_case_without_an_id_is_over_also_when_its_record_varies_in_the_batch() -> None:
    known = KnownContent(cases=[OpenCase(digest_of("a"), None, written=False, is_current=False)])
    assert changed([raw("1", "a"), raw("1", "b")], known).identified == (digest_of("a"),)
