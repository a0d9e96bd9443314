"""One family of errors. Each says what to do about it and keeps the facts it was raised with."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from etl.secrets import hide


class ETLError(Exception):
    """The root. `code` is stable and machine-readable, the message is for people, `facts` are the details.

    No message holds a secret of the source that is being read, whoever said it.
    """

    code: str = "error"

    def __init__(self, message: str, *, code: str | None = None, **facts: Any) -> None:
        message = hide(message)
        super().__init__(message)
        self.message = message
        self.facts = facts
        if code:
            self.code = code

    def within(self, shown: str) -> Self:
        """The same error with the place where it happened before its message."""
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        other.message = f"{shown}: {self.message}"
        other.args = (other.message,)
        other.__cause__ = self
        return other


class ConfigError(ETLError):
    """A declared source, or the file it stands in, is wrong."""

    code = "config_error"


class FetchError(ETLError):
    """The outside did not answer as it should, and may do so later."""

    code = "fetch_failed"

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class NoAnswerError(FetchError):
    """The outside did not answer, or not in time."""

    code = "timeout"


class SliceOverError(FetchError):
    """A download would take longer than its slice."""

    code = "slice_over"


class RateLimitError(FetchError):
    """The outside has had enough of our requests for now."""

    code = "rate_limited"


class RefusedError(ETLError):
    """The outside answered that it will not serve us; asking again does not help. `status` is that of its answer."""

    code = "refused"

    def __init__(self, message: str, *, status: int | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.status = status


class ForeignPageError(RefusedError):
    """The next page is on another host, which must not get what was meant for this one."""

    code = "foreign_page"


class ScratchError(ETLError):
    """A local copy could not be written: our disk, not the outside."""

    code = "scratch_failed"


class FormatError(ETLError):
    """What came back is not what the source was declared to be."""

    code = "bad_format"


class WaitError(ETLError):
    """A wait is needed that does not fit into this slice."""

    code = "waiting"

    def __init__(self, message: str, *, seconds: float, tries: int, cause: ETLError) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.tries = tries
        self.cause = cause


class Postponed(StrEnum):
    """Why a host is not to be asked for now: the code of the error that says so."""

    BY_SERVER = "postponed"
    BY_BREAKER = "breaker_open"
    # The server said so in an earlier run.
    SINCE_EARLIER = "not_due"


class PostponedError(ETLError):
    """The host is not to be asked for so many seconds."""

    def __init__(self, message: str, *, by: Postponed, seconds: float) -> None:
        super().__init__(message, code=by)
        self.by = by
        self.seconds = seconds


class RecordError(ETLError):
    """One record cannot become an item; its neighbours can."""

    code = "rejected"

    def __init__(self, field: str, rule: str, value: Any, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.rule = rule
        self.value = value


class ExpectationError(ETLError):
    """A record breaks a rule for which its run is to fail."""

    code = "expectation_failed"


class LeaseLostError(ETLError):
    """Someone else holds this run or batch now, or it is over; what we hold must not be written."""

    code = "lease_lost"


class StorageError(ETLError):
    """PostgreSQL did not do what it was asked, and may do so later."""

    @property
    def failure(self) -> str:
        """What was wrong, as it is kept with what failed of it."""
        return self.code


class StorageUnavailableError(StorageError):
    """PostgreSQL cannot be reached, or the connection was lost; the outcome of a commit may be unknown."""

    code = "database_unavailable"


class StorageTroubleError(StorageUnavailableError):
    """PostgreSQL answers, but cannot write: it lacks room, memory or files. `state` is its code for it."""

    code = "database_trouble"

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message, state=state)
        self.state = state

    @property
    def failure(self) -> str:
        """PostgreSQL's code."""
        return self.state


class StorageConflictError(StorageError):
    """A deadlock, a lock wait that took too long or a serialisation failure: the transaction was rolled back."""

    code = "database_conflict"


class TooSlowError(ETLError):
    """A question takes longer than it may, or too many such are at work; to ask again at once is of no use."""

    code = "too_slow"


class TooBroadError(ETLError):
    """So much matches a question that no way to answer it is quick."""

    code = "too_broad"


class PageTooLargeError(ETLError):
    """The items of a page are too large to be sent together."""

    code = "page_too_large"


class UnknownSourceError(ETLError):
    """No source has this name."""

    code = "unknown_source"


class SourceOwnedError(ETLError):
    """The source is declared in the file of sources, and is changed there."""

    code = "owned_by_file"


class VersionNeededError(ETLError):
    """A change has to say which version it changes."""

    code = "version_needed"


class StaleVersionError(ETLError):
    """The version that is to be changed is not the one that there is."""

    code = "stale_version"


class SourceRemovalError(ETLError):
    """Items of a source of this name are still being deleted."""

    code = "being_removed"


class SourceInactiveError(ETLError):
    """The source is disabled or paused."""

    code = "source_inactive"


class AlreadyActiveError(ETLError):
    """Nothing new could be queued: every source asked for has an active run."""

    code = "already_active"


class NothingToReplayError(ETLError):
    """No stored record is meant by what is to be driven again."""

    code = "nothing_to_replay"


class NoSnapshotError(ETLError):
    """What a source lacks is not deleted, so that there is nothing to accept."""

    code = "no_snapshot"


class NoBackfillError(ETLError):
    """The source does not say how a range of its past is asked for, or too much is asked for at once."""

    code = "no_backfill"


class TooManyStreamsError(ETLError):
    """As many answers stay open as may."""

    code = "too_many_streams"


class TooManyPreviewsError(ETLError):
    """As many previews go on as may."""

    code = "too_many_previews"


class UnknownKeyError(ETLError):
    """No API key has this id, or it does not count any more."""

    code = "unknown_key"


class MirrorResetError(ETLError):
    """A mirror has read what this database does not hold, or comes too late to be told all that was removed."""

    code = "mirror_reset"


class TooManyExportsError(ETLError):
    """As many exports go on as may."""

    code = "too_many_exports"


class NotInstalledError(ETLError):
    """What is asked for needs a library that is not installed."""

    code = "not_installed"


class OldProtocolError(ETLError):
    """In the version of HTTP that was used a body that broke off looks whole."""

    code = "old_protocol"


class UnknownExportError(ETLError):
    """No export of the last day has this id."""

    code = "unknown_export"


class UnknownAlertError(ETLError):
    """No alert has this id."""

    code = "unknown_alert"


class NoDestinationError(ETLError):
    """Alerts go nowhere: no address is set."""

    code = "no_destination"


class UnknownSessionError(ETLError):
    """No session has this id, or it is over."""

    code = "unknown_session"


class KeyReplacedError(ETLError):
    """An API key that another has replaced, and that goes on for a while, was to be replaced again."""

    code = "key_replaced"


class KeyReusedError(ETLError):
    """An `Idempotency-Key` stands for another request."""

    code = "idempotency_key_reused"


class UnknownErrorGroupError(ETLError):
    """No run failed of this."""

    code = "unknown_error"


class UnknownItemError(ETLError):
    """No item has this id."""

    code = "unknown_item"


class OlderReleaseError(ETLError):
    """A process of another release is alive, which would take what is asked for as something else."""

    code = "older_release"


class UnknownPlanError(ETLError):
    """No plan has this id."""

    code = "unknown_plan"


class UnknownCaseError(ETLError):
    """No rejected record has this id."""

    code = "unknown_case"


class UnknownRunError(ETLError):
    """No run has this id."""

    code = "unknown_run"


class UnknownHostError(ETLError):
    """Nothing is remembered about this host."""

    code = "unknown_host"


class BrokerUnavailableError(ETLError):
    """Redis cannot be reached."""

    code = "broker_unavailable"


class RunFinishedError(ETLError):
    """The run has already ended."""

    code = "run_finished"
