"""A preview in a process of its own, as its parent sees it: whatever a source does, there is an answer in time."""

from __future__ import annotations

import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

# What starting the process, mapping and checking may take beside the reading: seconds.
MARGIN = 15.0


def run_preview(project: Path, document: dict[str, Any], records: int, seconds: float, *options: str) -> dict[str, Any]:
    """What `worker.previewing`, with these options, says of a source; an `error` where the process said nothing.

    It is started in the folder of the project, reads so many records, and for so many seconds at most.
    """
    wanted = msgspec.json.encode({"source": document, "records": records, "seconds": seconds})
    try:
        # What is left of one that was ended is removed here.
        with TemporaryDirectory(prefix="kasparro-previews-") as folder:
            done = subprocess.run(  # noqa: S603 -- our own module
                [sys.executable, "-m", "worker.previewing", *options],
                cwd=project,
                env=os.environ | {"TMPDIR": folder},
                input=wanted,
                stdout=subprocess.PIPE,
                timeout=seconds + MARGIN,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return _ended(document, "too_slow", f"it was not done within {seconds + MARGIN:.0f} s")
    if done.returncode:
        return _ended(document, "process_died", _why(done.returncode, seconds))
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    return answer


def _why(status: int, seconds: float) -> str:
    if status == -14:
        return f"the process that read it computed for longer than {seconds:.0f} s and was ended"
    return f"the process that read it ended with {status}; a run of it would end so too"


def _ended(document: dict[str, Any], code: str, message: str) -> dict[str, Any]:
    """All that can be said when the process said nothing."""
    about = {"source_name": document.get("name"), "source_type": document.get("type")}
    return {**about, "error": {"code": code, "message": message}}
