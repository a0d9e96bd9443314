"""Driver errors in, our errors out: the one place that knows PostgreSQL's codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy.exc import DBAPIError

from etl.errors import StorageConflictError, StorageTroubleError, StorageUnavailableError, TooSlowError

if TYPE_CHECKING:
    from etl.errors import ETLError

_CANCELLED = "57014"
# Deadlock, serialisation failure, lock not available, and a statement cancelled by a timeout.
_CONFLICTS = frozenset({"40P01", "40001", "55P03", _CANCELLED})
# Admin shutdown, crash shutdown, cannot connect now, idle transaction ended, too many connections, read-only standby.
_UNAVAILABLE = frozenset({"57P01", "57P02", "57P03", "25P03", "53300", "25006"})
# What the server itself lacks, whatever it is asked to write.
TROUBLES = {
    "53000": "it is out of resources",
    "53100": "there is no room left on its disk",
    "53200": "it is out of memory",
    "53400": "a limit of its configuration is reached",
    "58000": "its operating system fails it",
    "58030": "it cannot read or write its files",
}


def translate(error: DBAPIError | psycopg2.Error, *, timed: bool = False) -> ETLError | None:
    """Our error for the driver's, as it is (from COPY) or wrapped; None for one that is a defect of ours.

    `timed` is for sessions whose statements have a time of their own: one that was cancelled will be so again.
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "pgcode", None)
    if timed and code == _CANCELLED:
        return TooSlowError("the database needs more time for this than it may take")
    if code in TROUBLES:
        return StorageTroubleError(f"the database cannot write: {TROUBLES[code]}", state=code)
    if code in _CONFLICTS:
        return StorageConflictError("the database rolled the transaction back")
    if code in _UNAVAILABLE or (code is None and _is_lost(cause)):
        return StorageUnavailableError("the database cannot be reached")
    return None


def _is_lost(cause: BaseException | None) -> bool:
    """Whether the driver has lost the server. In the middle of a COPY it says so by the class of all its errors."""
    return (
        isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError) or type(cause) is psycopg2.DatabaseError
    )
