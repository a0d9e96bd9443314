"""What a new release reads otherwise: a new version of the sources that it concerns, and a replay of each."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from db.queries.processes import are_of_one_release
from db.queries.replays import queue_replay
from db.queries.versions import DECLARED
from db.statement import text
from db.states import ACTIVE_RUN
from etl.declare.source import parse
from etl.errors import ConfigError, NothingToReplayError
from etl.mapping.reader import READER, is_read_otherwise
from etl.runs.outcome import Trigger
from etl.runs.replays import EVERYTHING

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# Sources that are looked at in one transaction.
LIMIT = 50


def renew_readers(connection: Connection) -> int:
    """Look at some of the sources that were declared under an older release, once none of its processes is alive.

    Returns:
        How many were looked at.
    """
    if not are_of_one_release(connection):
        return 0
    connection.execute(_KEEP)
    rows = connection.execute(_OLDER, {"reader": READER, "limit": LIMIT}).all()
    for row in rows:
        _renew(connection, row)
    return len(rows)


# What the release before has declared while the tables were of this one.
_KEEP = text(f"""
    INSERT INTO source_versions (source_name, version, mapping_version, mapped_since, reader, made_by, document)
    SELECT s.name, s.version, s.mapping_version,
        CASE WHEN s.mapping_version > before.mapping_version THEN s.mapping_version
            ELSE coalesce(before.mapped_since, s.mapping_version) END,
        coalesce(before.reader, 1), 'upgrade', {DECLARED}
    FROM sources s
    LEFT JOIN LATERAL (
        SELECT mapping_version, mapped_since, reader FROM source_versions v
        WHERE v.source_name = s.name ORDER BY version DESC LIMIT 1) before ON true
    WHERE NOT EXISTS (SELECT 1 FROM source_versions v WHERE v.source_name = s.name AND v.version = s.version)
    ON CONFLICT DO NOTHING
""")
# One that is driven again at the moment has its turn later.
_OLDER = text(f"""
    SELECT s.name, s.version, v.document, v.reader FROM sources s
    JOIN source_versions v ON v.source_name = s.name AND v.version = s.version
    WHERE v.reader < :reader AND NOT EXISTS (
        SELECT 1 FROM etl_runs r WHERE r.source_name = s.name AND r.lane = 'replay' AND r.{ACTIVE_RUN})
    ORDER BY s.name LIMIT :limit FOR UPDATE OF s SKIP LOCKED
""")


def _renew(connection: Connection, row: Row[tuple[str, int, dict[str, object], int]]) -> None:
    values = {"name": row.name, "version": row.version, "reader": READER}
    if not _is_concerned(row.document, row.reader):
        connection.execute(_CONFIRM, values)
        return
    connection.execute(_RAISE, values)
    with suppress(NothingToReplayError):
        queue_replay(connection, uuid4(), row.name, Trigger.UPGRADE, EVERYTHING, is_sent=False)


def _is_concerned(document: dict[str, object], reader: int) -> bool:
    try:
        return is_read_otherwise(parse(document), reader)
    except ConfigError:
        # A document that this release refuses: its runs say so.
        return False


_CONFIRM = text("UPDATE source_versions SET reader = :reader WHERE source_name = :name AND version = :version")
_RAISE = text("""
    WITH raised AS (
        UPDATE sources SET version = version + 1, mapping_version = mapping_version + 1,
            updated_at = clock_timestamp()
        WHERE name = :name RETURNING name, version, mapping_version
    )
    INSERT INTO source_versions (source_name, version, mapping_version, mapped_since, reader, made_by, document)
    SELECT r.name, r.version, r.mapping_version, v.mapped_since, :reader, 'upgrade', v.document
    FROM raised r JOIN source_versions v ON v.source_name = r.name AND v.version = :version
    ON CONFLICT DO NOTHING
""")
