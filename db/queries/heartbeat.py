"""That all of the service is well: said by one of its processes at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.standing import database_time, service_troubles
from db.statement import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOOK = "heartbeat"

_CLAIM = text("""
    INSERT INTO etl_looks AS l (name, looked_at) VALUES (:name, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET looked_at = excluded.looked_at
    WHERE l.looked_at < clock_timestamp() - make_interval(secs => :seconds)
       -- written before the clock was set back
       OR l.looked_at > clock_timestamp() + interval '1 minute'
    RETURNING name
""")


def claim_heartbeat(connection: Connection, seconds: float, *, is_scheduling: bool) -> bool:
    """Whether the caller is to say that all is well: it is, and nobody has said so for so many seconds."""
    if connection.execute(_CLAIM, {"name": LOOK, "seconds": seconds}).first() is None:
        return False
    return not any(service_troubles(connection, database_time(connection), is_scheduling=is_scheduling))
