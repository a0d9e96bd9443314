"""gunicorn's settings: `gunicorn -c web/gunicorn_config.py web.wsgi:app`."""

from __future__ import annotations

from config import settings

_settings = settings.load()
_host = f"[{_settings.web_host}]" if ":" in _settings.web_host else _settings.web_host

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
