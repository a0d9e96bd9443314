"""What reviewers would otherwise have to look for: rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from config.settings import PROJECT
from etl.hosts.breaker import State
from etl.runs.outcome import BatchState, Stage, Status

PACKAGES = ("broker", "config", "db", "etl", "stack", "web", "worker")
STATES = {*Status, *Stage, *BatchState, *State}


def nodes(*packages: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node of the packages' code, with its place."""
    paths = [path for package in packages for path in (PROJECT / package).rglob("*.py")]
    assert paths
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            yield f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}", node


def sides(compare: ast.Compare) -> list[ast.expr]:
    return [compare.left, *compare.comparators]


def texts(compare: ast.Compare) -> set[str]:
    parts = [part for side in sides(compare) for part in ast.walk(side) if isinstance(part, ast.Constant)]
    return {part.value for part in parts if isinstance(part.value, str)}


def is_about_a_code(compare: ast.Compare) -> bool:
    return any(isinstance(side, ast.Attribute) and side.attr == "code" for side in sides(compare))


def test_no_code_of_an_error_and_no_state_is_compared_with_bare_text() -> None:
    """What control flow asks for is a type or a named fact; the texts stand where they are defined."""
    assert [
        place
        for place, node in nodes(*PACKAGES)
        if isinstance(node, ast.Compare) and (texts(node) & STATES or (is_about_a_code(node) and texts(node)))
    ] == []


def test_what_the_database_is_to_do_is_a_function_with_a_name() -> None:
    assert [
        place
        for place, node in nodes("web", "worker")
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"transact", "read"}
        and any(isinstance(part, ast.Lambda) for part in node.args)
    ] == []


def test_no_class_does_too_much() -> None:
    """Twelve methods at most, inherited ones left out."""
    assert [
        f"{place} {node.name}"
        for place, node in nodes("worker", "etl/extract", "etl/http", "etl/runs", "etl/hosts", "etl/files")
        if isinstance(node, ast.ClassDef) and sum(isinstance(part, ast.FunctionDef) for part in node.body) > 12
    ] == []


def test_no_module_is_longer_than_a_reader_keeps_in_mind() -> None:
    """400 lines."""
    long = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py") if len(lines(path)) > 400]
    assert long == []


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_no_group_is_possessive_where_old_pythons_get_it_wrong() -> None:
    """Before 3.11.5 one that gives up halfway goes on from there; `pieces` has some, and says why they are right."""
    assert [
        place
        for place, node in nodes(*PACKAGES)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str | bytes)
        and re.search(r"\)[*+?}]\+", str(node.value))
        and not place.startswith("etl/extract/pieces.py")
    ] == []
