"""Errors keep their facts."""

from __future__ import annotations

import ast
from pathlib import Path

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


def test_no_code_of_an_error_is_compared_with_bare_text() -> None:
    """What control flow asks for is a type or a named fact; the texts of codes stand where they are defined."""
    root = Path(__file__).parents[2]
    paths = [path for part in ("etl", "db", "broker", "worker", "web") for path in (root / part).rglob("*.py")]
    assert paths
    compared = [
        f"{path}:{node.lineno}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and _reads_a_code(node) and _has_text(node)
    ]
    assert compared == []


def _reads_a_code(compare: ast.Compare) -> bool:
    return any(isinstance(side, ast.Attribute) and side.attr == "code" for side in (compare.left, *compare.comparators))


def _has_text(compare: ast.Compare) -> bool:
    inner = [part for side in (compare.left, *compare.comparators) for part in ast.walk(side)]
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in inner)
