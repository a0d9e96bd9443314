"""What is wrong with the service as a whole: raised by who finds it, a reason of `/health` until it is cleared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.statement import text

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


def raise_alarm(connection: Connection, code: str, message: str) -> None:
    """Raise an alarm; one that stands keeps its time and takes the newer message."""
    query = text("""
        INSERT INTO etl_alarms (code, message) VALUES (:code, :message)
        ON CONFLICT (code) DO UPDATE SET message = excluded.message, since = least(etl_alarms.since, excluded.since)
    """)
    connection.execute(query, {"code": code, "message": message})


def clear_alarm(connection: Connection, code: str, older_than: float) -> None:
    """Clear an alarm that was raised so many seconds ago."""
    query = text("""
        DELETE FROM etl_alarms
        WHERE code = :code AND since < clock_timestamp() - make_interval(secs => :seconds)
    """)
    connection.execute(query, {"code": code, "seconds": older_than})


def list_alarms(connection: Connection) -> list[Row[Any]]:
    """All alarms that stand, the oldest first."""
    return list(connection.execute(text("SELECT code, message, since FROM etl_alarms ORDER BY since, code")))
