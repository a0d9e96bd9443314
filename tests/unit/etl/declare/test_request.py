"""Requests as they are declared."""

from __future__ import annotations

from etl.declare.request import fill


def test_secrets_are_filled_in_where_they_are_named() -> None:
    assert fill("Bearer ${A}/${B}$x", {"A": "1", "B": "2"}) == "Bearer 1/2$x"
