"""What nobody wants to be told of until some time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.statement import text

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

_PUT = text("""
    INSERT INTO alert_mutes (scope, subject, until, reason, made_by)
    VALUES (:scope, :subject, :until, :reason, :made_by)
    ON CONFLICT (scope, subject) DO UPDATE SET until = excluded.until, reason = excluded.reason,
        made_by = excluded.made_by, made_at = clock_timestamp()
""")
_END = text("""
    UPDATE alert_mutes SET until = clock_timestamp()
    WHERE scope = :scope AND subject = :subject AND until > clock_timestamp()
""")
_LIST = text("""
    SELECT scope, nullif(subject, '') AS subject, until, reason, made_by, made_at FROM alert_mutes
    WHERE until > clock_timestamp() ORDER BY until, scope, subject LIMIT :limit
""")


def put_mute(
    connection: Connection, scope: str, subject: str, until: datetime | None, reason: str | None, made_by: str
) -> None:
    """Mute until a time, instead of until another if it was muted already; None ends it."""
    values = {"scope": scope, "subject": subject, "until": until, "reason": reason, "made_by": made_by}
    if until is None:
        connection.execute(_END, {"scope": scope, "subject": subject})
    else:
        connection.execute(_PUT, values)


def list_mutes(connection: Connection, limit: int) -> list[Row[Any]]:
    """What is muted now, what ends first first."""
    return list(connection.execute(_LIST, {"limit": limit}))
