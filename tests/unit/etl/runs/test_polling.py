"""What is remembered of what a server said, by table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from etl.declare.source import parse
from etl.extract import target_for
from etl.runs.polling import Heard, PollResult, ServerHints, poll_result, settled_target
from etl.runs.schedule import QuietHours

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NIGHT = QuietHours([0, 1])
HOURLY = QuietHours(interval=3600)
NOBODY = ServerHints()
OLD, NEW, OTHER = "http://old/", "http://new/", "http://other/"


def said(
    fresh: float = 0.0, quiet: QuietHours | None = None, moved_to: str | None = None, moved_count: int = 0
) -> PollResult:
    return PollResult(fresh, NOON, quiet, moved_to, moved_count)


@pytest.mark.parametrize(
    ("heard", "before", "honour", "expected"),
    [
        (Heard(0, None), NOBODY, True, None),
        (Heard(60, None), NOBODY, True, said(60)),
        (Heard(60, None), NOBODY, False, None),
        # What is on record is taken back when the server says no more of it.
        (Heard(0, None), ServerHints(noted=True), True, said()),
        (Heard(60, None), ServerHints(noted=True), False, said()),
        # No server has us wait for longer than a day.
        (Heard(90_000, None), NOBODY, True, said(86_400)),
        # Quiet hours hold until an answer gives others, or takes them back.
        (Heard(0, None, NIGHT), NOBODY, True, said(quiet=NIGHT)),
        (Heard(0, None), ServerHints(quiet=NIGHT, noted=True), True, said(quiet=NIGHT)),
        (Heard(0, None, QuietHours()), ServerHints(quiet=NIGHT, noted=True), True, said()),
        (Heard(0, None, NIGHT), NOBODY, False, None),
        # Of freshness and a feed's interval the longer counts.
        (Heard(60, None, HOURLY), NOBODY, True, said(3600, HOURLY)),
        (Heard(7200, None, HOURLY), NOBODY, True, said(7200, HOURLY)),
        (Heard(60, None, HOURLY), ServerHints(noted=True), False, said()),
        # A move counts the runs in a row that met it.
        (Heard(0, NEW), NOBODY, True, said(moved_to=NEW, moved_count=1)),
        (Heard(0, NEW), NOBODY, False, said(moved_to=NEW, moved_count=1)),
        (Heard(0, NEW), ServerHints(NEW, 3, noted=True), True, said(moved_to=NEW, moved_count=4)),
        (Heard(0, OTHER), ServerHints(NEW, 3, noted=True), True, said(moved_to=OTHER, moved_count=1)),
        (Heard(0, None), ServerHints(NEW, 4, noted=True), True, said()),
        # Once it is believed the new address is asked, where there is no redirect to be met.
        (Heard(0, None), ServerHints(NEW, 5, noted=True), True, said(moved_to=NEW, moved_count=5)),
        (Heard(0, OTHER), ServerHints(NEW, 5, noted=True), True, said(moved_to=OTHER, moved_count=1)),
    ],
)
def test_what_is_noted(heard: Heard, before: ServerHints, honour: bool, expected: PollResult | None) -> None:
    assert poll_result(heard, before, NOON, honour_cache=honour) == expected


@pytest.mark.parametrize(("count", "address"), [(0, None), (4, None), (5, NEW), (6, NEW)])
def test_a_move_is_believed_when_five_runs_have_met_it(count: int, address: str | None) -> None:
    assert ServerHints(NEW, count).new_address == address


def test_of_several_answers_the_one_that_goes_stale_first_counts() -> None:
    heard = Heard(60, None, NIGHT).and_then(30, NEW).and_then(90, None)
    assert heard == Heard(30, NEW, NIGHT)


@pytest.mark.parametrize(
    ("url", "new", "header", "asked"),
    [
        ("http://a/x", "http://b/y", None, "http://b/y"),
        ("http://a/x", "http://a/y", "${KEY}", "http://a/y"),
        ("http://a/x", "http://b/y", "${KEY}", "http://a/x"),
        ("http://a/x", "https://a/y", "${KEY}", "http://a/x"),
        ("http://a/x", "http://a:81/y", "${KEY}", "http://a/x"),
    ],
)
def test_secrets_do_not_follow_a_source_to_another_origin(url: str, new: str, header: str | None, asked: str) -> None:
    auth = {"auth": {"kind": "bearer", "token": header}} if header else {}
    source = parse({"name": "a", "type": "api", "request": {"url": url, **auth}})
    settled = settled_target(target_for(source, {"KEY": "s3cret"}), ServerHints(new, 5))
    assert settled
    assert settled.url == asked


def test_a_file_has_no_address_and_what_has_not_moved_keeps_its_own() -> None:
    assert settled_target(None, ServerHints(NEW, 5)) is None
    target = target_for(parse({"name": "a", "type": "api", "request": {"url": OLD}}), {})
    assert settled_target(target, ServerHints(NEW, 4)) is target
