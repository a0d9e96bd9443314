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

EXTRACT_QUEUE = "extract"
LOAD_QUEUE = "load"
LOW_QUEUE = "low"


@dataclass(frozen=True)
class ExtractMessage:
    """Go on extracting a run."""

    run_id: UUID


@dataclass(frozen=True)
class BatchMessage:
    """Process a batch: from normalise on, or only load when it is normalised already."""

    batch_id: int
    normalized: bool = False


Message = ExtractMessage | BatchMessage
