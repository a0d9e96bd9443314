"""The Celery side: `celery -A worker worker|beat|flower|call|inspect`."""

from worker.app import app

__all__ = ["app"]
