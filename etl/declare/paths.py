"""JMESPath over exact JSON: decimals are numbers here, and `to_number` loses nothing."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError

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

    def search(self, value: Any) -> Any:
        """What the path leads to, None for nothing.

        Raises:
            ValueError: the path's functions do not fit the value.
        """
        try:
            return self._compiled.search(value, options=_OPTIONS)
        except (JMESPathError, ArithmeticError, TypeError, RecursionError) as error:
            raise ValueError(str(error).splitlines()[0]) from error


_OPTIONS = jmespath.Options(custom_functions=_ExactFunctions())


@lru_cache(maxsize=1024)
def path(text: str) -> Path:
    """The compiled path of a text; compiled once."""
    return Path(text)


def _exact(value: float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
