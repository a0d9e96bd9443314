"""The Celery app of workers and beat, and what their processes start and stop."""

from __future__ import annotations

import gc
import os
import socket
from typing import Any

from celery import signals

import log_config
import settings
from messaging import make_app
from worker.sweeper import Sweeper

app = make_app()
app.conf.imports = ("worker.tasks",)

_sweepers: list[Sweeper] = []


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    log_config.configure(settings.load())


@signals.worker_process_init.connect
def _collect_less_often(**_: Any) -> None:
    """A batch is thousands of small objects in no cycle: looking through them cost a fifth of the time of normalise."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@signals.task_postrun.connect
def _collect(**_: Any) -> None:
    """What a task leaves in cycles may hold a whole batch."""
    gc.collect()


@signals.worker_ready.connect
def _start_in_worker(**_: Any) -> None:
    _start_sweeper("worker")


@signals.beat_init.connect
def _start_in_beat(**_: Any) -> None:
    _start_sweeper("beat")


@signals.worker_shutting_down.connect
def _stop_sweepers(**_: Any) -> None:
    for sweeper in _sweepers:
        sweeper.stop()


def _start_sweeper(kind: str) -> None:
    """In the main process, after the pool was forked: its database connections are made in its own thread."""
    sweeper = Sweeper(app, settings.load_connected(), kind, f"{kind}@{socket.gethostname()}:{os.getpid()}")
    sweeper.start()
    _sweepers.append(sweeper)
