"""Runs that someone asks for: whether a source may run now, and what came of asking."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from etl.errors import SourceInactiveError
from etl.runs.outcome import Failure
from etl.runs.share import SET_ASIDE, set_aside_message

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from etl.runs.messages import ExtractMessage


@dataclass(frozen=True)
class WantedSource:
    """A source that is asked to run."""

    name: str
    type: str
    enabled: bool
    paused: bool
    set_aside_until: datetime | None

    def refusal(self) -> Refusal | None:
        """Why it may not, if so."""
        if self.set_aside_until:
            message = set_aside_message(self.name, self.set_aside_until)
            return Refusal(self, Failure(SET_ASIDE, message), message)
        if self.enabled and not self.paused:
            return None
        state = "paused" if self.enabled else "disabled"
        failure = Failure(SourceInactiveError.code, f"the source is {state}")
        return Refusal(self, failure, f"the source {self.name!r} is {state}")


@dataclass(frozen=True)
class Refusal:
    """Why no run was queued: as it stands on record beside the name of the source, and in words that name it."""

    source: WantedSource
    failure: Failure
    message: str

    @property
    def error(self) -> SourceInactiveError:
        """The same for whoever asked."""
        until = {"not_before": self.source.set_aside_until} if self.source.set_aside_until else {}
        return SourceInactiveError(self.message, code=self.failure.code, source=self.source.name, **until)


class RequestStatus(StrEnum):
    """What a request does for a source: its run is a new one, or the one that is active already."""

    QUEUED = "queued"
    ALREADY_ACTIVE = "already_active"


@dataclass(frozen=True)
class RequestedRun:
    """The run of a source that was asked to run; None if the active one has ended just now."""

    source: WantedSource
    run_id: UUID | None
    status: RequestStatus


@dataclass(frozen=True)
class Requested:
    """The runs that were asked for, the messages to send, and how many sources were left out as set aside."""

    runs: list[RequestedRun]
    messages: list[ExtractMessage]
    set_aside: int

    @property
    def queued(self) -> list[UUID]:
        """The new runs."""
        return [run.run_id for run in self.runs if run.run_id and run.status is RequestStatus.QUEUED]

    @property
    def already_active(self) -> int:
        """How many sources keep the run that they have."""
        return sum(run.status is RequestStatus.ALREADY_ACTIVE for run in self.runs)


def first_refusal(sources: list[WantedSource]) -> Refusal | None:
    """All may run, or none is asked to."""
    return next(filter(None, (source.refusal() for source in sources)), None)
