"""A worker with faults built in: `python -m bench.faults.launcher <celery arguments>`.

`CRASH_AT=stage:point` kills the whole worker once at that point (a marker file remembers); `REPEAT=n` sends every message
n times. The product has no such hooks: they are put around its functions here.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "FAKETIME" in os.environ:
    # libfaketime does not know the call behind Python's sleep; select waits as well.
    time.sleep = lambda seconds: select.select([], [], [], max(0.0, seconds)) and None  # type: ignore[assignment]

from celery.__main__ import main

import messaging
from db.session import Database
from worker import extraction, loading, tasks

if TYPE_CHECKING:
    from sqlalchemy import Connection

# The write of each stage that a crash is placed around.
WRITES = {
    "extract": (extraction, "store_batch"),
    "normalize": (loading, "stage_batch"),
    "load": (loading, "load_batch"),
}
CLAIMS = {"extract": (extraction, "claim_run"), "normalize": (loading, "claim_batch"), "load": (loading, "claim_batch")}
POINTS = (
    "after_claim",
    "before_write",
    "before_commit",
    "after_commit",
    "before_publish",
    "after_publish",
    "before_ack",
)


def die_once(marker: Path) -> None:
    """Kill this worker and all its children, unless it was done before."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        os.killpg(os.getpgid(0), signal.SIGKILL)


def crash_at(stage: str, point: str, marker: Path) -> None:
    """Put the crash where it was asked for."""
    if point == "after_claim":
        _after(*CLAIMS[stage], marker, stage)
    elif point == "before_write":
        _before(*WRITES[stage], marker)
    elif point in {"before_commit", "after_commit"}:
        _around_commit(*WRITES[stage], marker, before=point == "before_commit")
    elif point in {"before_publish", "after_publish"}:
        _around_publish(stage, marker, before=point == "before_publish")
    else:
        _before_ack(stage, marker)


def _before(module: Any, name: str, marker: Path) -> None:
    original = getattr(module, name)

    def dying(*args: Any) -> Any:
        die_once(marker)
        return original(*args)

    setattr(module, name, dying)


def _after(module: Any, name: str, marker: Path, stage: str) -> None:
    """After the claim's commit: the next transaction of the process finds the crash."""
    original, state = getattr(module, name), {"normalize": "extracted", "load": "normalized"}.get(stage)
    transaction = Database.transaction
    claimed = [False]

    def claiming(*args: Any) -> Any:
        claim = original(*args)
        if claim is not None and (state is None or claim.state == state):
            claimed[0] = True
        return claim

    @contextlib.contextmanager
    def scope(self: Database) -> Iterator[Connection]:
        with transaction(self) as connection:
            yield connection
        if claimed[0]:
            die_once(marker)

    setattr(module, name, claiming)
    Database.transaction = scope  # type: ignore[method-assign,assignment]


def _around_commit(module: Any, name: str, marker: Path, *, before: bool) -> None:
    original, transaction, written = getattr(module, name), Database.transaction, [False]

    def writing(*args: Any) -> Any:
        result = original(*args)
        written[0] = True
        return result

    @contextlib.contextmanager
    def scope(self: Database) -> Iterator[Connection]:
        with transaction(self) as connection:
            yield connection
            if before and written[0]:
                die_once(marker)
        if not before and written[0]:
            die_once(marker)

    setattr(module, name, writing)
    Database.transaction = scope  # type: ignore[method-assign,assignment]


def _around_publish(stage: str, marker: Path, *, before: bool) -> None:
    task = {"extract": "etl.extract", "normalize": "etl.normalize", "load": "etl.load"}[stage]
    original = messaging._send  # noqa: SLF001

    def sending(app: Any, message: Any) -> None:
        from celery import current_task

        ours = bool(current_task) and current_task.name == task
        if ours and before:
            die_once(marker)
        original(app, message)
        if ours and not before:
            die_once(marker)

    messaging._send = sending  # noqa: SLF001


def _before_ack(stage: str, marker: Path) -> None:
    original = tasks.ClaimTask.__call__

    def calling(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.name == f"etl.{stage}":
            die_once(marker)

    tasks.ClaimTask.__call__ = calling  # type: ignore[method-assign]


def repeat_messages(times: int, seed: int) -> None:
    """Send every message several times, and some of those sent before once more."""
    original, dice, sent = messaging._send, random.Random(seed), list[Any]()  # noqa: SLF001

    def sending(app: Any, message: Any) -> None:
        sent.append(message)
        again = [message] * times + dice.sample(sent, min(len(sent), 2))
        dice.shuffle(again)
        for one in again:
            original(app, one)

    messaging._send = sending  # noqa: SLF001


def _main() -> Callable[[], int]:
    if at := os.environ.get("CRASH_AT"):
        stage, point = at.split(":")
        crash_at(stage, point, Path(os.environ["CRASH_MARKER"]))
    if times := os.environ.get("REPEAT"):
        repeat_messages(int(times), int(os.environ.get("SEED", "1")))
    return main  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.argv = ["celery", *sys.argv[1:]]
    _main()()
