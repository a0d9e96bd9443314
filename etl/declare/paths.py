"""JMESPath over exact JSON: decimals are numbers here, and `to_number` loses nothing."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError

if TYPE_CHECKING:
    from collections.abc import Iterator

# JMESPath knows values by the name of their Python type; ours has one more.
functions.TYPES_MAP["Decimal"] = "number"
functions.REVERSE_TYPES_MAP["number"] = (*functions.REVERSE_TYPES_MAP["number"], "Decimal")


class _ExactFunctions(functions.Functions):
    """The built-in functions, with numbers that keep their digits."""

    @functions.signature({"types": []})
    def _func_to_number(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            return None
        if not isinstance(value, str):
            return value
        try:
            return Decimal(value)
        except InvalidOperation:
            return None

    @functions.signature({"types": ["array-number"]})
    def _func_sum(self, values: list[Any]) -> Any:
        return sum(map(_exact, values), Decimal(0))

    @functions.signature({"types": ["array-number"]})
    def _func_avg(self, values: list[Any]) -> Any:
        return self._func_sum(values) / len(values) if values else None


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
        except (JMESPathError, ArithmeticError, TypeError, RecursionError) as error:
            raise ValueError(str(error).splitlines()[0]) from error


def complaint(text: str) -> str | None:
    """What is wrong with a text as a path, None if nothing: it does not compile, or calls what is not there."""
    try:
        node = path(text).parsed
    except ValueError as error:
        return str(error)
    return next((f"{text!r} is not a JMESPath: there is no function {name}()" for name in _unknown(node)), None)


def _unknown(node: dict[str, Any]) -> Iterator[str]:
    """The functions of a compiled path that do not exist."""
    if node["type"] == "function_expression" and node["value"] not in _ExactFunctions.FUNCTION_TABLE:
        yield node["value"]
    for child in node["children"]:
        yield from _unknown(child)


_OPTIONS = jmespath.Options(custom_functions=_ExactFunctions())


@lru_cache(maxsize=1024)
def path(text: str) -> Path:
    """The compiled path of a text; compiled once."""
    return Path(text)


def _exact(value: float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
