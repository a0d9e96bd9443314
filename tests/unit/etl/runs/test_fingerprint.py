"""Failed runs that have one cause."""

from __future__ import annotations

import pytest

from etl.runs.fingerprint import fingerprint, generalised, host_declared
from etl.runs.outcome import Failure


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no answer within 30.0 s", "no answer within 12.5 s"),
        ("'id' is missing in 17 records", "'sku' is missing in 4 records"),
        ("https://a.example/items?page=3 answered 503", "https://a.example/items?page=9 answered 503"),
        ("request 6f2a2f0e-0000-4000-8000-000000000000 failed", "request 7f2a2f0e-1111-4000-8000-00000000000a failed"),
        ("at 2026-01-02T03:04:05Z: refused", "at 2025-11-12T13:14:15Z: refused"),
        ("orders.csv: No such file or directory", "in/items2.csv.gz: No such file or directory"),
        ("object deadbeef0123456789 is gone", "object 0123456789abcdef01 is gone"),
    ],
)
def test_what_differs_from_run_to_run_is_left_out(one: str, other: str) -> None:
    assert generalised(one) == generalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example/x answered 503", "https://a.example/x answered 500"),
        ("https://a.example/x answered 503", "https://b.example/x answered 503"),
        ("no answer within 30 s", "no connection within 30 s"),
    ],
)
def test_what_tells_causes_apart_stays(one: str, other: str) -> None:
    assert generalised(one) != generalised(other)


def test_a_group_has_one_code_one_host_and_one_message() -> None:
    at = {"request": {"url": "https://A.example:8443/x"}}
    same = fingerprint(Failure("http_503", "answered 503 after 3 tries"), at)
    assert same == fingerprint(
        Failure("http_503", "answered 503 after 5 tries"), {"request": {"url": "https://a.example:8443/y"}}
    )
    assert same != fingerprint(Failure("timeout", "answered 503 after 3 tries"), at)
    assert same != fingerprint(Failure("http_503", "answered 503 after 3 tries"), {"file": "x.csv"})
    assert len(same) == 16


def test_the_host_is_that_of_the_document() -> None:
    assert host_declared({"request": {"url": "${FEED_URL}/x"}}) == "${FEED_URL}"
    assert host_declared({"file": "x.csv"}) is None
