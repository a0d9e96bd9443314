"""Previews: made by a process of their own, so that no source can hurt the one that serves."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import Any

from config.settings import PROJECT
from etl.errors import TooManyPreviewsError
from etl.trial.child import run_preview
from web.errors import InvalidRequestError

# Of this process; the processes of all take their places from the database.
_places = BoundedSemaphore(2)


def preview(document: dict[str, Any], records: int, seconds: float) -> dict[str, Any]:
    """Preview a source: its document, how many records, and for how many seconds it may be read.

    Raises:
        InvalidRequestError: the source cannot be read as it is declared.
        TooManyPreviewsError: two go on already.
    """
    if not _places.acquire(blocking=False):
        raise TooManyPreviewsError("two previews go on; ask again later")
    try:
        answer = run_preview(PROJECT, document, records, seconds)
    finally:
        _places.release()
    if refusal := answer.get("turned_away"):
        raise _refusal(refusal["code"], refusal["message"])
    return answer


def _refusal(code: str, message: str) -> Exception:
    if code == TooManyPreviewsError.code:
        return TooManyPreviewsError(message)
    return InvalidRequestError("body", "source", message)
