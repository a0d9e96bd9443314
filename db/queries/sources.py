"""Sources: applied from a file, looked up, scheduled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.share import IS_SET_ASIDE
from db.statement import text
from etl.declare.revision import Declared, refuse, revise
from etl.errors import UnknownSourceError
from etl.runs.schedule import next_slot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from etl.declare.catalog import Scheduled
    from etl.declare.revision import Revision
    from etl.declare.source import AnySource

# Serialises those who apply sources, so that two files are never mixed.
APPLY_LOCK = 7236150419


@dataclass(frozen=True)
class Applied:
    """What applying a file changed, by source name."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    disabled: tuple[str, ...]
    unchanged: tuple[str, ...]


# What a server asked for holds for as long as the same is asked of it.
_UPSERT = text(
    """
    INSERT INTO sources (name, type, config, enabled, next_run_at, origin)
    VALUES (:name, :type, CAST(:config AS jsonb), :enabled, :next_run_at, :origin)
    ON CONFLICT (name) DO UPDATE SET type = excluded.type, config = excluded.config, enabled = excluded.enabled,
        next_run_at = excluded.next_run_at, origin = excluded.origin, version = sources.version + 1,
        not_before = CASE WHEN {same} AND sources.not_before_reason IS DISTINCT FROM 'set_aside'
            THEN sources.not_before END,
        not_before_reason = CASE WHEN {same} THEN nullif(sources.not_before_reason, 'set_aside') END,
        deaths = 0, death_cause = NULL, misses = CASE WHEN {same} THEN sources.misses ELSE 0 END,
        answered_at = CASE WHEN {same} THEN sources.answered_at END,
        rest = CASE WHEN {same} THEN sources.rest END, moved_to = CASE WHEN {same} THEN sources.moved_to END,
        moved_count = CASE WHEN {same} THEN sources.moved_count ELSE 0 END, gone_reason = NULL,
        mapping_version = sources.mapping_version + :remapped, updated_at = clock_timestamp()
""".replace("{same}", "sources.config -> 'request' = excluded.config -> 'request'")
)


def apply_sources(connection: Connection, declared: Sequence[Scheduled], now: datetime) -> Applied:
    """Make the file's sources those of the database: all of them or, on an error, none.

    Raises:
        ConfigError: a source would change what identifies its records.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPLY_LOCK})
    known = {row.name: row for row in connection.execute(text("SELECT * FROM sources FOR UPDATE"))}
    created: list[str] = []
    changed: list[str] = []
    unchanged: list[str] = []
    for item in declared:
        name, old = item.source.name, known.get(item.source.name)
        revision = revise(item, Declared(old.config, old.enabled) if old else None)
        if revision is None:
            unchanged.append(name)
            continue
        if revision.identity and _has_items(connection, name):
            raise refuse(item.source, revision.identity)
        due = old.next_run_at if old and revision.keeps_slot else next_slot(item.schedule, now)
        _write(connection, item.source, revision, due)
        (changed if old else created).append(name)
    names = [item.source.name for item in declared]
    return Applied(tuple(created), tuple(changed), _disable_others(connection, names), tuple(unchanged))


def _has_items(connection: Connection, name: str) -> bool:
    query = text("SELECT EXISTS (SELECT 1 FROM unified_items WHERE source_name = :name)")
    return bool(connection.execute(query, {"name": name}).scalar_one())


def _write(connection: Connection, source: AnySource, revision: Revision, due: datetime) -> None:
    values = {
        "name": source.name,
        "type": revision.document["type"],
        "config": msgspec.json.encode(revision.document).decode(),
        "enabled": source.enabled,
        "next_run_at": due,
        "origin": "file",
        "remapped": int(revision.is_remapped),
    }
    connection.execute(_UPSERT, values)


def _disable_others(connection: Connection, names: list[str]) -> tuple[str, ...]:
    query = text("""
        UPDATE sources SET enabled = false, version = version + 1, updated_at = clock_timestamp()
        WHERE origin = 'file' AND enabled AND name <> ALL (:names) RETURNING name
    """)
    return tuple(connection.execute(query, {"names": names}).scalars())


def check_known(connection: Connection, name: str) -> None:
    """Tell a name that no source has from a source of which there is nothing.

    Raises:
        UnknownSourceError: no source has it.
    """
    if connection.execute(text("SELECT 1 FROM sources WHERE name = :name"), {"name": name}).first() is None:
        raise UnknownSourceError(f"there is no source named {name!r}", source=name)


def find_sources(connection: Connection, names: Sequence[str] | None) -> list[Row[Any]]:
    """The sources of these names, in their order; without names all that are to run by themselves.

    Those are enabled, and neither paused, gone nor set aside.

    Raises:
        UnknownSourceError: one of the names is not known.
    """
    query = f"""
        SELECT name, type, enabled, coalesce(paused_until > clock_timestamp(), false) AS paused,
            CASE WHEN {IS_SET_ASIDE} THEN not_before END AS set_aside_until
        FROM sources
    """
    if names is None:
        active = f"""
            WHERE enabled AND gone_reason IS NULL AND (paused_until IS NULL OR paused_until <= clock_timestamp())
              AND NOT {IS_SET_ASIDE}
            ORDER BY name
        """
        return list(connection.execute(text(query + active)))
    found = {
        row.name: row for row in connection.execute(text(query + " WHERE name = ANY (:names)"), {"names": list(names)})
    }
    for name in names:
        if name not in found:
            raise UnknownSourceError(f"there is no source named {name!r}", source=name)
    return [found[name] for name in dict.fromkeys(names)]
