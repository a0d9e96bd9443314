"""One slice of a plan: stored records mapped and compared, a step at a time."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.plans import begin_plan, step_plan
from etl.declare.source import parse
from etl.mapping.mapper import Mapper
from etl.runs.messages import PlanMessage
from etl.runs.replays import SLICE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from etl.records import Mapped, StoredRecord
    from worker.process import Process, Publish


def plan(process: Process, plan_id: UUID, publish: Publish, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Work on a plan until a slice is over, and then send for the next one."""
    if not process.database.transact(begin_plan, plan_id):
        return
    until = clock() + SLICE_SECONDS
    while process.database.transact(step_plan, plan_id, _map_rows):
        if clock() > until:
            publish([PlanMessage(plan_id)])
            return


def _map_rows(document: dict[str, Any], records: list[StoredRecord]) -> Mapped:
    mapper = mapper_of(msgspec.json.encode(document), fails=False)
    return mapper.normalize(map(mapper.identified, records))


@lru_cache(maxsize=32)
def mapper_of(document: bytes, *, fails: bool = True) -> Mapper:
    """The mapper of a source's document, as JSON; without `fails` no record fails a run."""
    return Mapper(parse(msgspec.json.decode(document)), fails=fails)
