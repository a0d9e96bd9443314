"""Whether a source may run when it is asked to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from etl.runs.run_requests import WantedSource, first_refusal

SOURCE = WantedSource("shop", "csv", enabled=True, paused=False, set_aside_until=None)
UNTIL = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("source", "code", "on_record", "in_words"),
    [
        (replace(SOURCE, enabled=False), "source_inactive", "the source is disabled", "the source 'shop' is disabled"),
        (replace(SOURCE, paused=True), "source_inactive", "the source is paused", "the source 'shop' is paused"),
        (
            replace(SOURCE, enabled=False, paused=True),
            "source_inactive",
            "the source is disabled",
            "the source 'shop' is disabled",
        ),
    ],
)
def test_who_is_not_active_is_refused(source: WantedSource, code: str, on_record: str, in_words: str) -> None:
    refusal = source.refusal()
    assert refusal
    assert (refusal.source, refusal.failure.code, refusal.failure.message) == (source, code, on_record)
    assert refusal.message == in_words


def test_who_is_set_aside_is_refused_with_the_way_out() -> None:
    refusal = replace(SOURCE, set_aside_until=UNTIL).refusal()
    assert refusal
    assert refusal.failure.code == "set_aside"
    assert "until 2026-01-31T12:00:00Z, or `python -m worker resume shop`" in refusal.message
    assert refusal.failure.message == refusal.message


def test_one_refusal_is_enough() -> None:
    idle, paused = replace(SOURCE, enabled=False), replace(SOURCE, paused=True)
    assert first_refusal([]) is None
    assert first_refusal([SOURCE, SOURCE]) is None
    assert first_refusal([SOURCE, paused, idle]) == paused.refusal()
