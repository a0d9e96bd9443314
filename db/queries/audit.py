"""The record of writes: who did what, to what."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.old_rows import delete_old
from db.statement import text

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection, Row

# What is longer, as JSON, is left out: bytes.
MOST_DETAIL = 65_536
# NUL as JSON writes it, which jsonb does not take; not a backslash that is itself written so, with `u0000` behind it.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")

_RECORD = text("""
    INSERT INTO audit_log (actor, action, target, detail) VALUES (:actor, :action, :target, CAST(:detail AS jsonb))
""")


def record_write(connection: Connection, actor: str, action: str, target: str | None, detail: dict[str, Any]) -> None:
    """Put a write on record, in the transaction that does it."""
    written = msgspec.json.encode(detail)
    if len(written) > MOST_DETAIL:
        written = msgspec.json.encode({key: _brief(value) for key, value in detail.items()})
    stored = _NUL.sub(r"\1", written.decode())
    values = {"actor": actor, "action": action, "target": target, "detail": stored}
    connection.execute(_RECORD, values)


def _brief(value: Any) -> Any:
    size = len(msgspec.json.encode(value))
    return value if size < MOST_DETAIL // 8 else {"left_out_bytes": size}


def list_writes(
    connection: Connection, *, actor: str | None, action: str | None, target: str | None, before: int | None, limit: int
) -> list[Row[Any]]:
    """Writes, the newest first."""
    given = {"actor": actor, "action": action, "target": target}
    conditions = [f"{name} = :{name}" for name, value in given.items() if value is not None]
    conditions += ["audit_id < :before"] if before is not None else []
    query = f"""
        SELECT audit_id, at, actor, action, target, detail FROM audit_log
        WHERE {" AND ".join(conditions) or "true"} ORDER BY audit_id DESC LIMIT :limit
    """
    return list(connection.execute(text(query), {**given, "before": before, "limit": limit}))


def purge_writes(connection: Connection, retention: timedelta, limit: int) -> int:
    """Remove some of the writes that are older; how many."""
    return delete_old(connection, "audit_log", "audit_id", "at", retention, limit)
