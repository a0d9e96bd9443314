"""gunicorn's settings: `gunicorn -c web/gunicorn_config.py web.wsgi:app`."""

from __future__ import annotations

import shutil
from typing import Any

from config import settings
from web.counting import counting_folder

_settings = settings.load()
_host = f"[{_settings.web_host}]" if ":" in _settings.web_host else _settings.web_host

# Where its processes keep what they count for /metrics, so that any of them can add it up; chosen before they start.
_counted = counting_folder()
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={_counted}"]


def child_exit(_: Any, worker: Any) -> None:
    """Forget what a process that ended has open; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid, _counted)  # type: ignore[no-untyped-call]


def on_exit(_: Any) -> None:
    """Remove what was counted."""
    shutil.rmtree(_counted, ignore_errors=True)


bind = f"{_host}:{_settings.web_port}"
workers = 2
worker_class = "web.server.BufferingWorker"
# For the application; one more answers `/health/live` and `/health/ready` alone.
threads = 8
timeout = 60
graceful_timeout = 20
# Its default place is shared by every gunicorn of the account, and nothing here uses it.
control_socket_disable = True
# The heartbeat file must not lie on a disk that can stall.
worker_tmp_dir = "/dev/shm"  # noqa: S108 -- gunicorn makes the file itself, privately
