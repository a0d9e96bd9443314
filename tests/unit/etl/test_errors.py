"""Errors keep their facts."""

from __future__ import annotations

from etl.errors import FetchError, Postponed, PostponedError, WaitError


def test_an_error_within_a_place_keeps_all_but_its_message() -> None:
    cause = FetchError("no", code="http_500", retry_after=3)
    error = WaitError("wait", seconds=5, tries=2, cause=cause)
    within = error.within("http://a")
    assert (str(within), within.message, error.message) == ("http://a: wait", "http://a: wait", "wait")
    assert (within.seconds, within.tries, within.cause, within.code) == (5, 2, cause, "waiting")
    assert within.__cause__ is error


def test_who_postponed_a_call_is_its_code() -> None:
    error = PostponedError("not now", by=Postponed.BY_BREAKER, seconds=1).within("a")
    assert (error.by, error.code, error.seconds) == (Postponed.BY_BREAKER, "breaker_open", 1)
