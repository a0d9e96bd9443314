"""A worker with three defects built in: `python launcher.py <celery arguments>`.

A request whose path is the name of a defect sets it off, in the process that makes it. Nothing of ours is imported here,
and the defects are put around the standard library, so that this runs with any version of the service.
"""

from __future__ import annotations

import collections
import ctypes
import http.client
import itertools
import os
import resource
import signal
import sys
import time
from typing import Any

from celery.__main__ import main

_STEP = 50 * 2**20
_STEP_SECONDS = 0.25
# Here the system's own limit would act, were this the whole machine: bytes.
_MOST = 2 * 2**30


def calls_c_for_ever() -> None:
    """Compute without end and with the interpreter's lock held: no signal handler and no thread gets a turn."""
    collections.deque(itertools.repeat(None), maxlen=0)


def dies_by_signal() -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


def grows() -> None:
    """Take ever more memory, and use it."""
    held: list[bytearray] = []
    while len(held) * _STEP < _MOST:
        held.append(bytearray(b"x") * _STEP)
        time.sleep(_STEP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


DEFECTS = {f"/{defect.__name__}": defect for defect in (calls_c_for_ever, dies_by_signal, grows)}


def build_in() -> None:
    """Look at the path of every request that is made in Python, by whatever library."""
    original = http.client.HTTPConnection.putrequest

    def asking(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        if url in DEFECTS:
            DEFECTS[url]()
        original(self, method, url, *args, **kwargs)

    http.client.HTTPConnection.putrequest = asking  # type: ignore[method-assign]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    build_in()
    sys.argv = ["celery", *sys.argv[1:]]
    main()
