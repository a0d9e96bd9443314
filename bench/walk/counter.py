"""Counts the modules that a batch of a plain local CSV goes through, and the calls from one package into another.

It is run by itself in the tree that it counts, and knows of it the names of tasks and tables only. A function counts
when it is called, not when its generator goes on; who calls is the nearest function of the tree, whatever libraries lie
between.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType


class Walk(NamedTuple):
    """Modules in the order in which they were entered, and calls from one package into another."""

    modules: list[str]
    crossings: list[tuple[str, int]]

    @property
    def total(self) -> int:
        """How many crossings there were."""
        return sum(count for _, count in self.crossings)


class Counting:
    """Takes note of the calls of a tree's functions while it is on."""

    def __init__(self, tree: Path, left_out: tuple[str, ...] = ("bench", "tests", "testkit")) -> None:
        self._tree = str(tree.resolve()) + os.sep
        self._left_out = left_out
        self._entered: dict[str, None] = {}
        self._crossings: Counter[str] = Counter()
        self._starts: dict[CodeType, int] = {}
        self._modules: dict[CodeType, str | None] = {}

    def count(self, work: Callable[[], Any]) -> Any:
        """Do some work, and count on the way."""
        sys.setprofile(self._note)
        try:
            return work()
        finally:
            sys.setprofile(None)

    def walk(self) -> Walk:
        """What was counted."""
        return Walk(list(self._entered), self._crossings.most_common())

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (module := self._module(frame.f_code)) is None or self._goes_on(frame):
            return
        if not module.endswith(".__init__"):
            self._entered[module] = None
        caller = frame.f_back
        while caller is not None and self._module(caller.f_code) is None:
            caller = caller.f_back
        origin = caller and self._module(caller.f_code)
        if origin and origin.partition(".")[0] != module.partition(".")[0]:
            self._crossings[f"{origin} -> {module}.{frame.f_code.co_name}"] += 1

    def _goes_on(self, frame: FrameType) -> bool:
        """Whether a generator goes on that was called before: it is called first where it was never gone on from."""
        code = frame.f_code
        if not code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
            return False
        return frame.f_lasti != self._starts.setdefault(code, frame.f_lasti)

    def _module(self, code: CodeType) -> str | None:
        """The module of a function of the tree; None for others, and for what runs when a module is imported."""
        if code not in self._modules:
            self._modules[code] = self._named(code)
        return self._modules[code]

    def _named(self, code: CodeType) -> str | None:
        if code.co_name == "<module>" or not code.co_filename.startswith(self._tree):
            return None
        parts = Path(code.co_filename.removeprefix(self._tree)).with_suffix("").parts
        return None if parts[0].startswith(".") or parts[0] in self._left_out else ".".join(parts)


def walk_of(source: str, database_url: str) -> Walk:
    """Run a source that has one batch: the way from the start of `etl.extract` to the commit of `etl.load`."""
    import psycopg2

    import worker

    app = worker.app
    app.conf.broker_url = "memory://"
    app.conf.broker_transport_options = {}
    app.loader.import_default_modules()
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    cursor = connection.cursor()
    run_id = str(uuid.uuid4())
    app.tasks["etl.run"].apply(args=(source,), task_id=run_id, throw=True)
    counter = Counting(Path.cwd())
    counter.count(lambda: app.tasks["etl.extract"](run_id))
    cursor.execute("SELECT batch_id, state FROM etl_batches WHERE run_id = %s", (run_id,))
    ((batch_id, state),) = cursor.fetchall()
    assert state == "extracted"
    counter.count(lambda: app.tasks["etl.normalize"](batch_id))
    counter.count(lambda: app.tasks["etl.load"](batch_id))
    cursor.execute("SELECT status FROM etl_runs WHERE run_id = %s", (run_id,))
    assert cursor.fetchone() == ("success",)
    return counter.walk()


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    # Another source goes first: what a process makes once is not on the way.
    walk_of("before", os.environ["DATABASE_URL"])
    print(json.dumps(walk_of("counted", os.environ["DATABASE_URL"])))
