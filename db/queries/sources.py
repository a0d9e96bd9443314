"""Sources: applied from a file, looked up, scheduled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.share import IS_SET_ASIDE
from db.statement import text
from etl.declare.source import AnySource, dump, identity_of, mapping_of
from etl.errors import ConfigError, UnknownSourceError
from etl.runs.schedule import next_slot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from etl.declare.catalog import Scheduled
    from etl.declare.source import Schedule

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
        old = known.get(item.source.name)
        document = {**dump(item.source), "schedule": _schedule_document(item.schedule)}
        if old is not None and old.config == document and old.enabled == item.source.enabled:
            unchanged.append(item.source.name)
            continue
        _refuse_identity_change(connection, item.source, old, document)
        _write(connection, item, document, old, now)
        (created if old is None else changed).append(item.source.name)
    names = [item.source.name for item in declared]
    return Applied(tuple(created), tuple(changed), _disable_others(connection, names), tuple(unchanged))


def _schedule_document(schedule: Schedule) -> dict[str, Any]:
    document = msgspec.to_builtins(schedule)
    assert isinstance(document, dict)
    return document


def _refuse_identity_change(
    connection: Connection, source: AnySource, old: Row[Any] | None, document: dict[str, Any]
) -> None:
    if old is None or source.identity_change:
        return
    before, after = identity_of(old.config), identity_of(document)
    changed = [key for key, value in after.items() if before[key] != value]
    if changed and _has_items(connection, source.name):
        raise ConfigError(
            f"source {source.name!r}: `{changed[0]}` would change what identifies its records, and every item would be "
            "stored a second time; if that is meant, set `identity_change: true`",
            code="identity_change",
        )


def _has_items(connection: Connection, name: str) -> bool:
    query = text("SELECT EXISTS (SELECT 1 FROM unified_items WHERE source_name = :name)")
    return bool(connection.execute(query, {"name": name}).scalar_one())


def _write(
    connection: Connection, item: Scheduled, document: dict[str, Any], old: Row[Any] | None, now: datetime
) -> None:
    same_schedule = old is not None and old.enabled and old.config.get("schedule") == document["schedule"]
    due = old.next_run_at if old is not None and same_schedule else next_slot(item.schedule, now)
    values = {
        "name": item.source.name,
        "type": document["type"],
        "config": msgspec.json.encode(document).decode(),
        "enabled": item.source.enabled,
        "next_run_at": due,
        "origin": "file",
        "remapped": int(old is not None and mapping_of(old.config) != mapping_of(document)),
    }
    connection.execute(_UPSERT, values)


def _disable_others(connection: Connection, names: list[str]) -> tuple[str, ...]:
    query = text("""
        UPDATE sources SET enabled = false, version = version + 1, updated_at = clock_timestamp()
        WHERE origin = 'file' AND enabled AND name <> ALL (:names) RETURNING name
    """)
    return tuple(connection.execute(query, {"names": names}).scalars())


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
