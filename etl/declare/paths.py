"""JMESPath over exact JSON: decimals are numbers here, and `to_number` loses nothing."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import jmespath
from jmespath.exceptions import JMESPathError

from etl.declare.functions import Functions, misused
from etl.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPTIONS = jmespath.Options(custom_functions=Functions())


class Path:
    """A compiled path."""

    def __init__(self, text: str) -> None:
        """Compile a path.

        Raises:
            ValueError: it is not JMESPath.
        """
        try:
            self._compiled = jmespath.compile(text)
        except JMESPathError as error:
            raise ValueError(f"{text!r} is not a JMESPath: {str(error).splitlines()[0]}") from error

    @property
    def parsed(self) -> dict[str, Any]:
        """The tree of the path: each node has `type`, `value` and `children`."""
        return cast("dict[str, Any]", self._compiled.parsed)

    def search(self, value: Any) -> Any:
        """What the path leads to, None for nothing.

        Raises:
            ValueError: the path's functions do not fit the value.
        """
        try:
            return self._compiled.search(value, options=_OPTIONS)
        except (JMESPathError, ArithmeticError, TypeError, ValueError, RecursionError, RecordError) as error:
            raise ValueError(str(error).splitlines()[0]) from error


def complaint(text: str) -> str | None:
    """What is wrong with a text as a path, None if nothing: it does not compile, or calls what is not there."""
    try:
        node = path(text).parsed
    except ValueError as error:
        return str(error)
    return next((f"{text!r} is not a JMESPath: {wrong}" for wrong in _misused(node)), None)


def _misused(node: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the calls of functions in a compiled path."""
    if node["type"] == "function_expression" and (wrong := misused(node["value"], len(node["children"]))):
        yield wrong
    for child in node["children"]:
        yield from _misused(child)


def is_true(value: Any) -> bool:
    """What JMESPath takes for true: 0 is, an empty text, list or object is not."""
    return value is not None and value is not False and value not in ("", [], {})


@lru_cache(maxsize=1024)
def path(text: str) -> Path:
    """The compiled path of a text; compiled once."""
    return Path(text)
