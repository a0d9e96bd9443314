"""Paths into records."""

from __future__ import annotations

from typing import Any

import pytest

from etl.declare.paths import path

pytestmark = pytest.mark.timeout(60)


def test_a_path_that_recurses_too_deep_is_no_defect() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="recursion"):
        path("to_string(@)").search(deep)
