"""Points at which a process can be stopped, and which of them a counting pass finds worth it.

A point is counted at the database driver and at Celery's signals, so it knows no function of the product: the nth
statement, COPY, commit or message of one execution of a stage, and whether that is before or after it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Where a stage does the same again and again, or what another did: how many of the first and of the last are aimed at.
LIMITS = {
    "staging": {"statement": (11, 2), "copy": (2, 0), "commit": (2, 1), "publish": (2, 1)},
    "loading anew": {"statement": (0, 6), "commit": (0, 1)},
    # Not every pass is one with a heartbeat or looks for old runs.
    "sweeping": {"statement": (12, 0), "commit": (7, 0)},
    "starting": {"statement": (2, 0), "commit": (1, 3)},
}

# What a stage does at least, where it could be gone through without.
SIGNS = {"fetch": "COPY raw_data", "staging": "COPY staged_items", "halving": "INSERT INTO etl_batches"}
# Stages that are also gone through with nothing to do.
FINDING = frozenset({"cancel", "closing", "sweeping"})

DATABASE_KINDS = {"statement": ("before",), "copy": ("before", "during"), "commit": ("before", "after", "unanswered")}
PROCESS_KINDS = {"commit": ("before", "after"), "publish": ("before", "after"), "ack": ("before",)}


class Point(NamedTuple):
    """`when` is before, during, after, or unanswered: done, and the process is not told."""

    stage: str
    kind: str
    n: int
    when: str

    def __str__(self) -> str:
        return f"{self.when} {self.kind} {self.n} of {self.stage}"


@dataclass(frozen=True)
class Event:
    """Something that an execution of a stage did, as the driver noted it."""

    execution: str
    stage: str
    kind: str
    n: int
    # Nothing of ours lies between it and the commit before it, so a crash before it is one after that.
    follows_commit: bool
    text: str


def read_trace(path: Path) -> list[Event]:
    return [Event(**json.loads(line)) for line in path.read_text().splitlines()]


def write_event(path: Path, event: Event) -> None:
    """Append to a file that there is; none is made."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, (json.dumps(vars(event)) + "\n").encode())
        os.close(descriptor)


def one_execution(events: Iterable[Event], stage: str) -> list[Event]:
    """What one execution of a stage did: the first there was, or the one that found most to do."""
    executions: dict[str, list[Event]] = {}
    for event in events:
        if event.stage == stage:
            executions.setdefault(event.execution, []).append(event)
    found = list(executions.values()) or [[]]
    return max(found, key=len) if stage in FINDING else found[0]


def is_seen(name: str, events: list[Event]) -> bool:
    """Whether a stage came about at all."""
    return any(SIGNS.get(name, "") in event.text for event in events)


def plan(name: str, events: list[Event], kinds: dict[str, tuple[str, ...]]) -> list[Point]:
    """The points of an execution, none that equals another."""
    return [
        Point(event.stage, event.kind, event.n, when)
        for event in _chosen(LIMITS.get(name, {}), events, kinds)
        for when in kinds[event.kind]
        if not (when == "before" and event.follows_commit)
    ]


def _chosen(limits: dict[str, tuple[int, int]], events: list[Event], kinds: Iterable[str]) -> Iterator[Event]:
    for kind in kinds:
        same = [event for event in events if event.kind == kind]
        first, last = limits.get(kind, (len(same), 0))
        yield from same[:first]
        yield from same[max(first, len(same) - last) :]


def counts(events: list[Event]) -> dict[str, Any]:
    """How many of each kind."""
    return {kind: sum(event.kind == kind for event in events) for kind in ("statement", "copy", "commit", "publish")}
