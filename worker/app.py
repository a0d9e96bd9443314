"""The Celery app of workers and beat, and what their processes start and stop."""

from __future__ import annotations

import gc
import os
import resource
import socket
from typing import Any

from celery import signals

from broker.messaging import make_app
from config import logs as log_config, settings
from db.session import Database
from worker.board import BOARD
from worker.courier import Courier
from worker.lookout import Lookout
from worker.outage import Outage
from worker.sweeper import Sweeper
from worker.watchdog import Watchdog

app = make_app()
app.conf.imports = ("worker.tasks",)

_threads: list[Sweeper | Watchdog | Courier | Lookout] = []
_workers: list[Any] = []


def pool_size() -> int | None:
    """How many processes the worker has of which this is one, None where there is no worker."""
    return int(_workers[-1].concurrency) if _workers else None


@signals.worker_init.connect
def _know_worker(sender: Any, **_: Any) -> None:
    """Before its processes are forked: what `--concurrency` said, if anything, only the worker itself knows."""
    _workers.append(sender)


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    log_config.configure(settings.load())


@signals.worker_process_init.connect
def _collect_less_often(**_: Any) -> None:
    """A batch is thousands of small objects in no cycle: looking through them cost a fifth of the time of normalise."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@signals.worker_process_init.connect
def _limit_memory(**_: Any) -> None:
    """What needs more memory gets a MemoryError, long before the kernel ends the process."""
    BOARD.take_place()
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (settings.load().worker_memory, hard))


@signals.task_postrun.connect
def _collect(**_: Any) -> None:
    """What a task leaves in cycles may hold a whole batch."""
    gc.collect()


@signals.worker_ready.connect
def _start_in_worker(sender: Any, **_: Any) -> None:
    _start_watch("worker", sender.controller.concurrency)
    watchdog = Watchdog(app, settings.load_connected(), BOARD)
    watchdog.start()
    _threads.append(watchdog)


@signals.beat_init.connect
def _start_in_beat(**_: Any) -> None:
    _start_watch("beat", 0)


@signals.worker_shutting_down.connect
def _stop_threads(**_: Any) -> None:
    for thread in _threads:
        thread.stop()


def _start_watch(kind: str, processes: int) -> None:
    """What watches, in the main process, after the pool was forked: each connects in its own thread."""
    name = f"{kind}@{socket.gethostname()}:{os.getpid()}"
    current, outage = settings.load_connected(), Outage()
    database = Database(current.database_url, name=f"kasparro-courier-{kind}", pool_size=1, patience=0)
    threads: list[Sweeper | Lookout | Courier] = [
        Sweeper(app, current, kind, name, processes, outage),
        Lookout(current, database, outage),
        *(Courier(current, destination, database) for destination in current.alert_urls),
    ]
    for thread in threads:
        thread.start()
    _threads.extend(threads)
