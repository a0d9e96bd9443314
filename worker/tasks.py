"""The tasks. Each takes an id, claims its row, and is harmless when it comes twice, late or out of order."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import structlog
from celery import Task

from broker.messaging import publish
from broker.trouble import note_trouble
from etl.errors import LeaseLostError, StorageTroubleError
from etl.runs import messages
from worker import adhoc, extraction, loading, planning
from worker.app import app
from worker.process import current

log = structlog.get_logger(__name__)


class ClaimTask(Task):
    """A task that claims before it acts: to have lost the claim is not an error.

    Every other error is shown to Celery and Flower as it is. Nothing is retried here: rows that are not done stay
    due, and the sweeper sends their message again.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> str | None:
        """Run the task with its name and arguments bound to the log.

        Returns:
            Which source and run it was about, for Celery's log and Flower; None when there was nothing to do.
        """
        structlog.contextvars.bind_contextvars(task=self.name, args=args)
        try:
            super().__call__(*args, **kwargs)
            about = structlog.contextvars.get_contextvars()
            return f"{about['source']}, run {about['run_id']}" if "run_id" in about else None
        except LeaseLostError as error:
            log.info("lease_lost", reason=error.message)
            return None
        except StorageTroubleError as error:
            note_trouble(app, error.message)
            raise
        finally:
            structlog.contextvars.clear_contextvars()


@app.task(name=messages.RUN, base=ClaimTask, bind=True)
def run(self: Task, source_name: str) -> None:
    """Run a source now; the run's id is this task's."""
    publish(app, adhoc.queue(current().database, UUID(self.request.id), source_name))


@app.task(name=messages.EXTRACT, base=ClaimTask)
def extract(run_id: str) -> None:
    """Extract one slice of a run."""
    extraction.extract(current(), UUID(run_id), partial(publish, app))


@app.task(name=messages.PLAN, base=ClaimTask)
def plan(plan_id: str) -> None:
    """Go on with the plan of a replay."""
    planning.plan(current(), UUID(plan_id), partial(publish, app))


@app.task(name=messages.NORMALIZE, base=ClaimTask)
def normalize(batch_id: int) -> None:
    """Map the raw rows of a batch and stage them."""
    publish(app, loading.normalize(current(), batch_id))


@app.task(name=messages.LOAD, base=ClaimTask)
def load(batch_id: int) -> None:
    """Upsert the staged rows of a batch."""
    publish(app, loading.load(current(), batch_id))
