"""Normalise and load: each claims its batch, works in one fenced transaction, and says what is to be sent next."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import structlog

from db.queries.batches import BatchClaim, claim_batch, halve_batch, load_batch, read_raw, stage_batch
from db.queries.closing import end_run
from db.queries.failures import release_batch, return_attempts
from db.queries.fields import find_drift, tell_drift
from db.queries.runs import resume_extraction
from etl.errors import ExpectationError, LeaseLostError, StorageError
from etl.mapping.observe import map_records
from etl.runs.backoff import wait_before
from etl.runs.drift import Policy, quarantined
from etl.runs.messages import BatchMessage, ExtractMessage
from etl.runs.outcome import BatchState, Failure, Outcome, Status
from worker.board import BATCH, BOARD
from worker.closing import close
from worker.lease import DATABASE_SECONDS
from worker.planning import mapper_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from db.session import Database
    from etl.records import Mapped
    from etl.runs.drift import Finding
    from etl.runs.messages import Message
    from worker.process import Process

log = structlog.get_logger(__name__)


def normalize(process: Process, batch_id: int) -> list[Message]:
    """Map the raw rows of an extracted batch; those that do not fit go to quarantine.

    Returns:
        The messages to send, beyond the link of the chain.
    """
    return _with_claim(process, batch_id, BatchState.EXTRACTED, _normalize)


def load(process: Process, batch_id: int) -> list[Message]:
    """Upsert the staged rows of a normalised batch, and close its run if it was the last.

    Returns:
        The messages to send.
    """
    return _with_claim(process, batch_id, BatchState.NORMALIZED, _load)


def _with_claim(
    process: Process, batch_id: int, state: BatchState, work: Callable[[Database, BatchClaim], list[Message]]
) -> list[Message]:
    """Claim the batch and work on it. A batch that keeps failing is halved instead."""
    database, lease = process.database, process.lease_seconds
    _settle(process)
    claim = database.transact(claim_batch, batch_id, state, lease)
    if claim is None:
        return []
    structlog.contextvars.bind_contextvars(source=claim.source_name, run_id=str(claim.run_id))
    if claim.exhausted:
        return _halve(database, claim)
    BOARD.hold(BATCH, UUID(int=batch_id), claim.token, lease + DATABASE_SECONDS)
    began = time.thread_time()
    try:
        return work(database, claim)
    except LeaseLostError:
        # To a wait for the database, or a halt of the machine: not to a batch that takes too long to compute.
        if time.thread_time() - began < lease / 2:
            process.owed.add((batch_id, state))
        raise
    except Exception as error:
        _release(process, claim, error)
        raise
    finally:
        BOARD.free()


def _release(process: Process, claim: BatchClaim, error: Exception) -> None:
    """The batch is free again at once. A database that is away, locked or full says nothing about the batch."""
    wait = wait_before(claim.attempt, random.random())  # noqa: S311 -- spread, not secrecy
    failure = error.failure if isinstance(error, StorageError) else None
    try:
        process.database.transact(release_batch, claim, wait, failure)
    except StorageError as again:
        # Its lease ends by itself. That it was claimed in vain is taken back when something can be written.
        log.warning("release_failed", batch_id=claim.batch_id, reason=again.message)
        if failure is not None:
            process.owed.add((claim.batch_id, claim.state))


def _settle(process: Process) -> None:
    """Give back the attempts that could not be given back at the time."""
    if process.owed:
        process.database.transact(return_attempts, sorted(process.owed))
        process.owed.clear()


def _normalize(database: Database, claim: BatchClaim) -> list[Message]:
    records = database.transact(read_raw, claim)
    mapper = mapper_of(msgspec.json.encode(claim.config))
    if claim.is_replay:
        records = list(map(mapper.identified, records))
    try:
        mapped = map_records(mapper, records)
    except ExpectationError as error:
        BOARD.free()
        database.transact(end_run, claim.run_id, Outcome(Status.FAILED, Failure(error.code, error.message)))
        return []
    findings = _drift(database, claim, mapped)
    if findings:
        database.transact(tell_drift, claim.run_id, claim.source_name, findings)
        if Policy.of(claim.config) is Policy.FAIL:
            message = f"its records are not as they were: {findings[0].message}"
            BOARD.free()
            database.transact(end_run, claim.run_id, Outcome(Status.FAILED, Failure("drift", message)))
            return []
        mapped = quarantined(mapped, findings)
    database.transact(stage_batch, claim, mapped)
    return []


def _drift(database: Database, claim: BatchClaim, mapped: Mapped) -> list[Finding]:
    """What of the batch is not as it was, where that keeps it from being loaded. What is driven again is old."""
    if claim.is_replay or mapped.observed is None or Policy.of(claim.config) is Policy.REPORT:
        return []
    return database.transact(find_drift, claim, mapped.observed)


def _load(database: Database, claim: BatchClaim) -> list[Message]:
    if not database.transact(load_batch, claim):
        log.warning("staging_was_emptied", batch_id=claim.batch_id)
        return [BatchMessage(claim.batch_id, low=claim.is_low)]
    return _go_on(database, claim)


def _go_on(database: Database, claim: BatchClaim) -> list[Message]:
    """After a batch: end the run, or wake its extraction if it waits for room."""
    BOARD.free()
    if close(database, claim.run_id):
        return []
    if database.transact(resume_extraction, claim.run_id):
        return [ExtractMessage(claim.run_id, low=claim.is_low)]
    return []


def _halve(database: Database, claim: BatchClaim) -> list[Message]:
    log.warning("batch_halved", batch_id=claim.batch_id, attempts=claim.attempt - 1)
    parts = database.transact(halve_batch, claim)
    if not parts:
        return _go_on(database, claim)
    return [BatchMessage(batch_id, low=claim.is_low) for batch_id in parts]
