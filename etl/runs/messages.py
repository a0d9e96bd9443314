"""What is said over Redis: a task's name and an id, never data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

RUN = "etl.run"
EXTRACT = "etl.extract"
NORMALIZE = "etl.normalize"
LOAD = "etl.load"
PLAN = "etl.plan"

EXTRACT_QUEUE = "extract"
LOAD_QUEUE = "load"
LOW_QUEUE = "low"
QUEUES = (EXTRACT_QUEUE, LOAD_QUEUE, LOW_QUEUE)


@dataclass(frozen=True)
class ExtractMessage:
    """Go on extracting a run; `low` if others go before it."""

    run_id: UUID
    low: bool = False


@dataclass(frozen=True)
class BatchMessage:
    """Process a batch: from normalise on, or only load when it is normalised already; `low` if others go before it."""

    batch_id: int
    normalized: bool = False
    low: bool = False


@dataclass(frozen=True)
class PlanMessage:
    """Go on with a plan."""

    plan_id: UUID
    low: bool = True


Message = ExtractMessage | BatchMessage | PlanMessage
