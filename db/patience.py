"""Waiting for a table that is in use: briefly, and again, since who waits for it makes all others wait behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.errorcodes import LOCK_NOT_AVAILABLE
from sqlalchemy.exc import DBAPIError

from etl.errors import StorageConflictError

if TYPE_CHECKING:
    from collections.abc import Callable

# How long one wait may last, as PostgreSQL writes it; and all of them, and the pause between two: seconds.
LOCK_WAIT = "500ms"
PATIENCE = 25.0
PAUSE = 0.5


def patiently(work: Callable[[], object], told: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Do what needs a table, on a connection whose `lock_timeout` is LOCK_WAIT, until the table is to be had.

    Raises:
        StorageConflictError: it is not; `told` says why.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            work()
        except (DBAPIError, psycopg2.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if getattr(cause, "pgcode", None) != LOCK_NOT_AVAILABLE:
                raise
            if time.monotonic() > until:
                raise StorageConflictError(told()) from error
            time.sleep(PAUSE)
        else:
            return
