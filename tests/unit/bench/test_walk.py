"""The counter of modules and of calls between packages, on a tree made for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.walk.counter import Counting


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    files = {
        "upper_room/__init__.py": "def of_the_package(): return 0",
        "upper_room/top.py": "import upper_room\n"
        "from lower_room.below import numbers, plain\n"
        "def run():\n"
        "    upper_room.of_the_package()\n"
        "    plain()\n"
        "    return sum(numbers(back)) + sorted([1], key=plain)[0]\n"
        "def back(number): return number",
        "lower_room/__init__.py": "",
        "lower_room/below.py": "def plain(number=0): return number\n"
        "def numbers(f):\n"
        "    yield 1\n"
        "    yield f(2)\n"
        "    yield 3",
        "tests/__init__.py": "def hidden(work): return work()",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in {"upper_room", "lower_room"}]:
        del sys.modules[name]


def test_calls_between_packages_count_once_also_those_of_generators_and_through_libraries(tree: Path) -> None:
    counting = Counting(tree)
    assert counting.count(importlib.import_module("upper_room.top").run) == 7
    walk = counting.walk()
    assert walk.modules == ["upper_room.top", "lower_room.below"]
    assert dict(walk.crossings) == {
        "upper_room.top -> lower_room.below.plain": 2,
        "upper_room.top -> lower_room.below.numbers": 1,
        "lower_room.below -> upper_room.top.back": 1,
    }
    assert walk.total == 4
