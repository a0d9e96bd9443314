"""Previews: made by a process of their own, so that no source can hurt the one that serves."""

from __future__ import annotations

import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore
from typing import Any

import msgspec

from config.settings import PROJECT
from etl.errors import TooManyPreviewsError
from web.errors import InvalidRequestError

# What starting the process, mapping and checking may take beside the reading: seconds.
MARGIN = 15.0
# Of this process; the processes of all take their places from the database.
_places = BoundedSemaphore(2)


def preview(document: dict[str, Any], records: int, seconds: float) -> dict[str, Any]:
    """Preview a source: its document, how many records, and for how many seconds it may be read.

    Raises:
        InvalidRequestError: the source cannot be read as it is declared.
        TooManyPreviewsError: two go on already.
    """
    wanted = msgspec.json.encode({"source": document, "records": records, "seconds": seconds})
    if not _places.acquire(blocking=False):
        raise TooManyPreviewsError("two previews go on; ask again later")
    try:
        # What is left of one that was ended is removed here.
        with TemporaryDirectory(prefix="kasparro-previews-") as folder:
            done = subprocess.run(
                [sys.executable, "-m", "worker.previewing"],
                cwd=PROJECT,
                env=os.environ | {"TMPDIR": folder},
                input=wanted,
                stdout=subprocess.PIPE,
                timeout=seconds + MARGIN,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return _ended(document, "too_slow", f"it was not done within {seconds + MARGIN:.0f} s")
    finally:
        _places.release()
    if done.returncode:
        return _ended(document, "process_died", _why(done.returncode, seconds))
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    if refusal := answer.get("turned_away"):
        raise _refusal(refusal["code"], refusal["message"])
    return answer


def _refusal(code: str, message: str) -> Exception:
    if code == TooManyPreviewsError.code:
        return TooManyPreviewsError(message)
    return InvalidRequestError("body", "source", message)


def _why(status: int, seconds: float) -> str:
    if status == -14:
        return f"the process that read it computed for longer than {seconds:.0f} s and was ended"
    return f"the process that read it ended with {status}; a run of it would end so too"


def _ended(document: dict[str, Any], code: str, message: str) -> dict[str, Any]:
    """All that can be said when the process said nothing."""
    about = {"source_name": document.get("name"), "source_type": document.get("type")}
    return {**about, "error": {"code": code, "message": message}}
