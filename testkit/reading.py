"""Reads a source the way a worker does, without a worker: what it reported is kept, and no time passes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace as replace_struct

from etl.declare.source import parse, secrets_of
from etl.errors import ETLError, WaitError
from etl.extract import open_source, target_for
from etl.extract.context import Context
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.budget import Budget
from etl.hosts.limiter import Change, HostLimiter, HostState
from etl.http.attempt import FetchResult
from etl.http.call import Policy
from etl.http.client import HttpClient
from etl.mapping.mapper import Mapper
from etl.records import BadRecord, Checkpoint, Cursor, Kept, Page, Position, RawRecord
from etl.reporter import Asked
from etl.runs.share import Pace

T = TypeVar("T")


class States:
    """The states of hosts, where no pause has to be waited for."""

    def __init__(self) -> None:
        self._states: dict[str, HostState] = {}

    def update(self, host: str, change: Change[T]) -> T:
        self._states[host], result = change(self._states.get(host, HostState()), time.time())
        return result

    def end_pauses(self) -> None:
        self._states = {host: replace_struct(state, budget=Budget()) for host, state in self._states.items()}


class Recorder:
    """The caller's side of an extraction: what it was told, and no real waiting."""

    has_stored = False
    pace = Pace()

    def __init__(self) -> None:
        self.attempts = 0
        self.waits: list[float] = []
        self.slept: list[float] = []
        self.warnings: list[str] = []
        self.fresh: list[float] = []
        self.moved: list[str | None] = []
        self.requests: list[Asked] = []
        self.quiet: tuple[list[int], list[int], float] | None = None
        self.states = States()
        self.limiter = HostLimiter(self.states, BreakerPolicy(5, 60), "test")

    def client(self, *, retries: int = 3, private: tuple[str, ...] = ("127.0.0.1",), seconds: float = 60) -> HttpClient:
        policy = Policy(retries, private, time.monotonic() + seconds)
        client = Persistent(policy, self.limiter, self, sleep=self._sleep)
        client.recorder = self
        return client

    def keep(self, seconds: float) -> None:
        assert seconds > 0
        self.attempts += 1

    def retrying(self, error: ETLError, tries: int, seconds: float) -> None:
        self.waits.append(seconds)

    def _sleep(self, seconds: float) -> None:
        """The time that a pause takes has passed for the limiter as well."""
        self.slept.append(seconds)
        self.states.end_pauses()

    def warn(self, code: str, message: str) -> None:
        self.warnings.append(code)

    def asked(self, request: Asked) -> None:
        self.requests.append(request)

    def alive(self) -> None:
        pass

    def may_go_on(self) -> bool:
        return True

    def answered_after(self, seconds: float) -> None:
        pass

    def answered(self, fresh: float, moved_to: str | None) -> None:
        self.fresh.append(fresh)
        self.moved.append(moved_to)

    def keeps_quiet(self, hours: list[int], days: list[int], interval: float) -> None:
        self.quiet = (hours, days, interval)


class Persistent(HttpClient):
    """Goes on after a short wait, as the next slice of a run does."""

    recorder: Recorder

    def call(self, attempt: Any, tries: int) -> FetchResult:
        while True:
            try:
                return super().call(attempt, tries)
            except WaitError as error:
                if error.seconds > 5:
                    raise
                tries = error.tries
                self.recorder._sleep(error.seconds)


def context(client: HttpClient, folder: Path, checkpoint: Checkpoint | None = None, roots: Any = None) -> Context:
    report = client.recorder  # type: ignore[attr-defined]
    return Context(
        lambda: client,
        report,
        folder / "scratch",
        roots or (folder,),
        folder,
        checkpoint or Checkpoint(),
        datetime.now(UTC),
    )


def read(
    document: dict[str, Any],
    client: HttpClient,
    tmp_path: Path,
    position: Position | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Page]:
    """The pages of a source; those that stream are read while they can be."""
    source = parse({"name": "a", "timeout": "2s", **document})
    secrets = dict.fromkeys(secrets_of(source), "s3cret")
    extractor = open_source(source, target_for(source, secrets), context(client, tmp_path, checkpoint))
    return [replace_struct(page, records=list(page.records)) for page in extractor.pages(position or Position())]


def position_at(cursor: Cursor | None, **facts: Any) -> Position:
    """A position as the database gives it back."""
    written = msgspec.json.encode(Position(msgspec.to_builtins(cursor), **facts))
    return msgspec.json.decode(written, type=Position)


def kept_of(page: Page) -> Kept:
    assert page.kept
    return page.kept


def after(page: Page) -> Checkpoint:
    """What a run leaves to the next one that ended with this page."""
    return Checkpoint(kept=kept_of(page))


def mark_of(page: Page) -> str | None:
    """The ETag that is kept of a page's answer."""
    validator = kept_of(page).validator
    assert validator
    return validator.etag


def records(pages: list[Page]) -> list[Any]:
    return [record for page in pages for record in page.records]


def take_all(mapper: Mapper, records: Iterable[Any]) -> tuple[list[RawRecord], list[BadRecord]]:
    """The records of a page as a mapper takes them, group by group: the good ones and the bad ones."""
    source = iter(records)
    groups = list(iter(lambda: mapper.take(source), ([], [], 0)))
    return [one for good, _, _ in groups for one in good], [one for _, bad, _ in groups for one in bad]
