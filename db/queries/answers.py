"""The answers to requests that came with an `Idempotency-Key`.

The key is taken in the transaction that does the work and stores the answer. Who comes with the same key meanwhile
waits for that transaction; if it is lost, it has done nothing, and the next one does the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.old_rows import delete_old
from db.statement import text
from etl.errors import KeyReusedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

KEPT = timedelta(hours=24)
# Who has just been told that an answer is kept finds it.
_MARGIN = timedelta(hours=1)


@dataclass(frozen=True)
class Asked:
    """A request that may come again: who asks, the key, and a hash of what is asked."""

    caller: str
    key: str
    request_hash: bytes


@dataclass(frozen=True)
class Answered:
    """An answer as it went out."""

    status: int
    headers: dict[str, Any]
    body: bytes


_TAKE = text("""
    INSERT INTO idempotency_keys (caller, key, request_hash) VALUES (:caller, :key, :request_hash)
    ON CONFLICT (caller, key) DO UPDATE
        SET request_hash = excluded.request_hash, created_at = clock_timestamp(),
            status = NULL, headers = NULL, body = NULL
        WHERE idempotency_keys.created_at < clock_timestamp() - make_interval(secs => :kept)
    RETURNING true
""")
_FIND = text("""
    SELECT request_hash, status, headers, body FROM idempotency_keys WHERE caller = :caller AND key = :key
""")


def take_key(connection: Connection, asked: Asked) -> Answered | None:
    """The answer to an earlier request of this key; None when this is the first, whose answer is to be kept.

    Raises:
        KeyReusedError: the earlier request asked for something else.
    """
    if connection.execute(_TAKE, {**vars(asked), "kept": KEPT.total_seconds()}).first():
        return None
    row = connection.execute(_FIND, {"caller": asked.caller, "key": asked.key}).one()
    if bytes(row.request_hash) != asked.request_hash:
        raise KeyReusedError("Idempotency-Key: it was given with another request within 24 hours")
    return Answered(row.status, row.headers, bytes(row.body))


def keep_answer(connection: Connection, asked: Asked, answer: Answered) -> None:
    """Keep what is answered now."""
    query = text("""
        UPDATE idempotency_keys SET status = :status, headers = CAST(:headers AS jsonb), body = :body
        WHERE caller = :caller AND key = :key
    """)
    values = {"status": answer.status, "headers": msgspec.json.encode(answer.headers).decode(), "body": answer.body}
    connection.execute(query, {"caller": asked.caller, "key": asked.key, **values})


def purge_answers(connection: Connection, limit: int) -> int:
    """Remove some of the answers that are not given again; how many."""
    return delete_old(connection, "idempotency_keys", "caller, key", "created_at", KEPT + _MARGIN, limit)
