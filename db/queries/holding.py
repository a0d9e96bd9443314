"""A run that one process works on from beginning to end: kept from all others, and what of it is to be done next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH
from etl.runs.messages import BatchMessage, ExtractMessage
from etl.runs.outcome import BatchState

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.runs.messages import Message

# What counts as sent for just now, a sweeper does not send for; a lease that is renewed does not expire.
_HOLD = """
    UPDATE {table}
    SET dispatched_at = CASE WHEN claimed_at IS NULL THEN clock_timestamp() ELSE dispatched_at END,
        lease_expires_at = CASE WHEN lease_expires_at IS NOT NULL
            THEN greatest(lease_expires_at, clock_timestamp() + make_interval(secs => :lease)) END
    WHERE run_id = :run_id AND {condition}
"""
_HOLD_RUN = text(_HOLD.format(table="etl_runs", condition=ACTIVE_RUN))
_HOLD_BATCHES = text(_HOLD.format(table="etl_batches", condition=OPEN_BATCH))

_DUE = "lease_expires_at IS NULL AND (not_before IS NULL OR not_before <= clock_timestamp())"


def hold_run(connection: Connection, run_id: UUID, lease: float) -> None:
    """Renew the claims on a run and on its batches, and keep what of it waits from the sweepers for a few seconds."""
    values = {"run_id": run_id, "lease": lease}
    connection.execute(_HOLD_RUN, values)
    connection.execute(_HOLD_BATCHES, values)


def next_of_run(connection: Connection, run_id: UUID) -> list[Message]:
    """The messages that would have to be sent now: its batches first, and when there are none its extraction."""
    batches = connection.execute(
        text(f"SELECT batch_id, state FROM etl_batches WHERE run_id = :run_id AND {OPEN_BATCH} AND {_DUE} ORDER BY 1"),
        {"run_id": run_id},
    ).all()
    if batches:
        return [BatchMessage(row.batch_id, normalized=row.state == BatchState.NORMALIZED) for row in batches]
    query = text(f"SELECT 1 FROM etl_runs WHERE run_id = :run_id AND {ACTIVE_RUN} AND extracted_at IS NULL AND {_DUE}")
    return [ExtractMessage(run_id)] if connection.execute(query, {"run_id": run_id}).first() else []
