"""The suite's side of `driver`: aim at a point, see whether a process is there, let it go on, see what is done."""

from __future__ import annotations

import contextlib
import json
from itertools import count
from typing import TYPE_CHECKING

from bench.faults.points import Event, Point, read_trace
from testkit.service import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Aims:
    """One folder, one aim at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._numbers = count()
        self._current = ""

    def take(self, point: Point, *, kills: bool) -> None:
        """From now on the next process that comes to the point stops there, or is killed."""
        self._current = f"{next(self._numbers)}"
        new = self.folder / "aim.new"
        new.write_text(json.dumps({"id": self._current, "point": list(point), "kills": kills}))
        new.rename(self.folder / "aim.json")

    def await_reached(self, is_over: Callable[[], bool], seconds: float) -> bool:
        """Whether a process came there, before all was over."""
        marker, looks = self.folder / f"reached-{self._current}", count(1)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: marker.exists() or (next(looks) % 250 == 0 and is_over()), seconds, every=0.002)
        return marker.exists()

    def release(self) -> None:
        """The process that has stopped goes on."""
        (self.folder / f"go-{self._current}").touch()

    def drop(self) -> None:
        (self.folder / "aim.json").unlink(missing_ok=True)

    def wake(self) -> None:
        """End the nap of beat."""
        (self.folder / "wake").touch()

    @contextlib.contextmanager
    def tracing(self) -> Iterator[list[Event]]:
        """What is done meanwhile; the list is filled at the end."""
        trace, events = self.folder / "trace", list[Event]()
        trace.touch()
        try:
            yield events
        finally:
            events += read_trace(trace)
            trace.unlink()
