"""Counts what a process does at its database driver, and stops or kills it at the point that is aimed at.

The suite talks to the process over a folder: `aim.json` says where to stop, `reached-…` that a process is there,
`go-…` that it may go on; while there is a file `trace`, everything counted is written to it. Stages are told apart by
Celery's task names, the thread's name, the kind of process, the address asked, and the tables in the SQL.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg2
import psycopg2.extensions
from celery import signals

from bench.faults.points import Event, Point, write_event

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "FAULT_POINTS"
SWEEPER = "sweeper"
TASKS = {"etl.extract": "fetch", "etl.normalize": "normalize", "etl.load": "load"}
# A stage that is over with the commit of a transaction with such a statement, and the one that follows.
FOLLOWING = {
    "fetch": (("COPY raw_data", "staging"), ("FROM seen_ids", "deleting")),
    "load": (("unified_items", "closing"),),
}
# A thread that works in passes begins another after it has waited, or was silent for so long: seconds.
SILENCE = 0.5
LONGEST_STOP = 60.0
# What SQLAlchemy asks of a connection that it makes or takes up again.
GREETINGS = {
    *("SELECT 1", "select pg_catalog.version()", "select current_schema()"),
    *("show transaction isolation level", "show standard_conforming_strings"),
}


@dataclass
class Execution:
    """A task, a pass of the sweeper, a tick of beat or a request."""

    stage: str
    name: str = field(default_factory=lambda: uuid4().hex)
    counts: Counter[str] = field(default_factory=Counter)
    last: float = field(default_factory=time.monotonic)
    # Whether the last thing done was to commit.
    committed: bool = False

    def note(self, kind: str, text: str, *, first: bool) -> Event:
        self.counts[kind] += 1
        event = Event(self.name, self.stage, kind, self.counts[kind], first and self.committed, text[:60])
        if kind != "publish":
            self.committed = kind == "commit"
        self.last = time.monotonic()
        return event

    def follow(self, texts: list[str]) -> None:
        """Go over to the following stage if that transaction was the last of this one."""
        for sign, following in FOLLOWING.get(self.stage, ()):
            if any(sign in text for text in texts):
                self.stage, self.counts = following, Counter()
                return


class Points:
    """Where this process stands, and where it is to stop."""

    def __init__(self, folder: Path, process: str) -> None:
        """`process` is worker, beat or web."""
        self._folder = folder
        self.process = process
        self._here = threading.local()

    def begin(self, kind: str, text: str = "", *, first: bool = False) -> Event | None:
        """Count something that is about to be done."""
        execution = self._execution()
        if execution is None:
            return None
        event = execution.note(kind, text, first=first)
        write_event(self._folder / "trace", event)
        self.reach(event, "before")
        return event

    def reach(self, event: Event | None, when: str) -> bool:
        """Stop here if it is asked for; True if it was."""
        if event is None or (aim := self._aim()) is None:
            return False
        if aim["point"] != list(Point(event.stage, event.kind, event.n, when)) or not self._is_first(aim["id"]):
            return False
        if aim["kills"]:
            os.killpg(os.getpgid(0), signal.SIGKILL)
        self._await(self._folder / f"go-{aim['id']}")
        return True

    def committed(self, texts: list[str]) -> None:
        execution = self._execution()
        if execution is not None:
            execution.follow(texts)

    def start_task(self, name: str) -> None:
        self._here.task = Execution(TASKS[name]) if name in TASKS else None

    def end_task(self) -> None:
        self.begin("ack")
        self._here.task = None

    def start_sending(self) -> None:
        self._here.message = self.begin("publish")

    def end_sending(self) -> None:
        self.reach(getattr(self._here, "message", None), "after")

    def nap(self, seconds: float, wait: Callable[[float], object]) -> None:
        """Wait in small steps, until the suite wants something."""
        self._here.pass_ = None
        before, until = self._wish(), time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._wish() == before:
            wait(min(left, 0.05))

    def _wish(self) -> int:
        wish = self._folder / "wake"
        return wish.stat().st_mtime_ns if wish.exists() else 0

    def _execution(self) -> Execution | None:
        if task := getattr(self._here, "task", None):
            return task  # type: ignore[no-any-return]
        if threading.current_thread().name == SWEEPER:
            return self._pass("sweeping")
        if self.process == "beat" and threading.current_thread() is threading.main_thread():
            return self._pass("schedule")
        return _request() if self.process == "web" else None

    def _pass(self, stage: str) -> Execution:
        execution: Execution | None = getattr(self._here, "pass_", None)
        if execution is None or time.monotonic() - execution.last > SILENCE:
            execution = self._here.pass_ = Execution(stage)
        return execution

    def _aim(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self._folder / "aim.json").read_bytes()))
        except FileNotFoundError:
            return None

    def _is_first(self, name: str) -> bool:
        """Of all processes and executions, one stops."""
        try:
            os.close(os.open(self._folder / f"reached-{name}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    @staticmethod
    def _await(path: Path) -> None:
        until = time.monotonic() + LONGEST_STOP
        while not path.exists() and time.monotonic() < until:
            select.select([], [], [], 0.005)


def _request() -> Execution | None:
    from flask import g, has_request_context, request

    if not has_request_context() or request.method != "POST":
        return None
    if "execution" not in g:
        g.execution = Execution("cancel" if request.path.endswith("/cancel") else "asking")
    return g.execution  # type: ignore[no-any-return]


def install(process: str) -> None:
    """Put the points into this process, if the suite has named a folder for them."""
    if FOLDER not in os.environ:
        return
    points = Points(Path(os.environ[FOLDER]), process)
    _Connection.points = points
    connect = psycopg2.connect
    psycopg2.connect = lambda *args, **options: connect(*args, **{"connection_factory": _Connection, **options})
    _connect(signals.task_prerun, lambda sender, **_: points.start_task(sender.name))
    _connect(signals.task_postrun, lambda **_: points.end_task())
    _connect(signals.before_task_publish, lambda **_: points.start_sending())
    _connect(signals.after_task_publish, lambda **_: points.end_sending())
    _shorten(points)


def _shorten(points: Points) -> None:
    """Beat and the sweeper wait for seconds between two passes; the suite can wake them."""
    sleep, wait = time.sleep, threading.Event.wait

    def sleeping(seconds: float) -> None:
        beat = points.process == "beat" and threading.current_thread() is threading.main_thread()
        points.nap(seconds, sleep) if beat else sleep(seconds)

    def waiting(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout is None or threading.current_thread().name != SWEEPER:
            return wait(self, timeout)
        points.nap(timeout, lambda seconds: wait(self, seconds))
        return self.is_set()

    time.sleep = sleeping  # type: ignore[assignment]
    threading.Event.wait = waiting  # type: ignore[method-assign]


def _connect(signal_: Any, receiver: Any) -> None:
    signal_.connect(receiver, weak=False)


class _Connection(psycopg2.extensions.connection):
    points: Points

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor_factory = _Cursor
        self.texts: list[str] = []

    def begin(self, kind: str, text: str) -> Event | None:
        first = not self.texts and not self.autocommit
        if not self.autocommit:
            self.texts.append(text)
        return self.points.begin(kind, text, first=first)

    def commit(self) -> None:
        event = self.points.begin("commit") if self.texts else None
        super().commit()
        self.points.reach(event, "after")
        if self.points.reach(event, "unanswered"):
            # The answer that is lost with the server.
            psycopg2.extensions.cursor(self).execute("SELECT 1")
        if self.texts:
            self.points.committed(self.texts)
        self.texts = []

    def rollback(self) -> None:
        self.texts = []
        super().rollback()


class _Cursor(psycopg2.extensions.cursor):
    connection: _Connection

    def execute(self, query: Any, values: Any = None) -> None:
        text = " ".join(str(query).split())
        if text in GREETINGS:
            return super().execute(query, values)
        event = self.connection.begin("statement", text)
        super().execute(query, values)
        self.connection.points.reach(event, "after")
        return None

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        event = self.connection.begin("copy", str(sql))
        super().copy_expert(sql, _Half(file, self.connection.points, event), size)
        self.connection.points.reach(event, "after")


class _Half(io.RawIOBase):
    """The rows of a COPY: with the last of them on their way the server has not been told that they are all."""

    def __init__(self, file: Any, points: Points, event: Event | None) -> None:
        self._file = file
        self._points = points
        self._event = event

    def read(self, size: int = -1, /) -> Any:
        read = self._file.read(size)
        if not read:
            self._points.reach(self._event, "during")
        return read
