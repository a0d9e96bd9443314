"""How a value is taken from a record: by an exact key, else by a path."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from etl.declare.paths import path as compiled_path

Record = dict[str, Any]
Getter = Callable[[Record], Any]

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
WORD = re.compile(r"[A-Za-z_]\w*")


def getter(path: str, keys: tuple[str, ...]) -> Getter:
    """An exact key of the record wins, else the path is JMESPath."""
    if path in keys:
        return itemgetter(path)
    if WORD.fullmatch(path):
        return _absent
    try:
        search = compiled_path(path).search
        # jsonb has an order of its own, which these can tell.
        return search if {"*", "("}.isdisjoint(path) else lambda record: search(_sorted(record))
    except ValueError:
        # The name of a key that this record lacks, such as `dc:title`.
        return _absent


def compiles(path: str) -> bool:
    """Whether a path is more than the name of a key."""
    try:
        compiled_path(path)
    except ValueError:
        return False
    return True


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return list(map(_sorted, value)) if isinstance(value, list) else value


def _absent(_: Record) -> None:
    return None
