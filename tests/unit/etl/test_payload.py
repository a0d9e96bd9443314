"""Values of records as JSON: what is kept, what is refused, and what it weighs."""

from __future__ import annotations

import pytest

from etl import payload
from etl.errors import FormatError, RecordError


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


def test_what_an_answer_takes_in_memory_is_known_before() -> None:
    assert payload.weight(b'{"a":[1,2]}') < 1000
    assert payload.weight(b"[" + b"[]," * 1_000_000) > 100_000_000
