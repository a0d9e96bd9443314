"""Sources: applied from a file, looked up, scheduled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.share import IS_SET_ASIDE
from db.queries.versions import keep_versions
from db.statement import text
from etl.declare.revision import Declared, refuse, revise
from etl.errors import UnknownSourceError
from etl.mapping.reader import READER
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
    """What applying a file changed, by source name; the missing are not in the file, and go on as they did."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    disabled: tuple[str, ...]
    missing: tuple[str, ...]
    unchanged: tuple[str, ...]


@dataclass(frozen=True)
class _Change:
    """A source that is new or declared otherwise than it was."""

    source: AnySource
    revision: Revision
    next_run_at: datetime
    is_new: bool


def apply_sources(connection: Connection, declared: Sequence[Scheduled], *, prune: bool = False) -> Applied:
    """Make the file's sources those of the database: all of them or, on an error, none.

    Those that came from the file and are not in it any more are disabled if it is to be pruned; else they go on.

    Raises:
        ConfigError: a source would change what identifies its records.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPLY_LOCK})
    now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    known = {row.name: row for row in connection.execute(_KNOWN)}
    changes = [change for item in declared if (change := _change(connection, item, known.get(item.source.name), now))]
    _write(connection, changes)
    keep_versions(
        connection,
        [change.source.name for change in changes],
        made_by="file",
        reader=READER,
        remapped=[change.source.name for change in changes if change.revision.is_remapped],
    )
    names = [item.source.name for item in declared]
    lost = tuple(connection.execute(_LOST, {"names": names}).scalars())
    if prune and lost:
        connection.execute(_DISABLE, {"names": list(lost)})
        keep_versions(connection, lost, made_by="file", reader=READER)
    touched = {change.source.name for change in changes}
    return Applied(
        created=tuple(change.source.name for change in changes if change.is_new),
        changed=tuple(change.source.name for change in changes if not change.is_new),
        disabled=lost if prune else (),
        missing=() if prune else lost,
        unchanged=tuple(name for name in names if name not in touched),
    )


_KNOWN = text("SELECT name, config, enabled, next_run_at, id_form FROM sources FOR UPDATE")


def _change(connection: Connection, item: Scheduled, known: Row[Any] | None, now: datetime) -> _Change | None:
    revision = revise(item, Declared(known.config, known.enabled, known.id_form) if known else None)
    if revision is None:
        return None
    if revision.identity and _has_items(connection, item.source.name):
        raise refuse(item.source, revision.identity)
    due = known.next_run_at if known and revision.keeps_slot else next_slot(item.schedule, now)
    return _Change(item.source, revision, due, is_new=known is None)


def _has_items(connection: Connection, name: str) -> bool:
    query = text("SELECT EXISTS (SELECT 1 FROM unified_items WHERE source_name = :name)")
    return bool(connection.execute(query, {"name": name}).scalar_one())


# What a server asked for holds for as long as the same is asked of it.
_UPSERT = text(
    """
    INSERT INTO sources (name, type, config, enabled, next_run_at, id_form, origin, version, mapping_version)
    SELECT name, type, config, enabled, next_run_at, id_form, 'file', 1 + coalesce(gone.version, 0),
        1 + coalesce(gone.mapping_version, remapped)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r(name text, type text, config jsonb, enabled boolean, next_run_at timestamptz, id_form text,
            remapped integer)
    -- of one that had this name before, and is no more
    LEFT JOIN LATERAL (
        SELECT max(v.version) AS version, max(v.mapping_version) AS mapping_version FROM source_versions v
        WHERE v.source_name = r.name AND NOT EXISTS (SELECT 1 FROM sources s WHERE s.name = r.name)) gone ON true
    ON CONFLICT (name) DO UPDATE SET type = excluded.type, config = excluded.config, enabled = excluded.enabled,
        next_run_at = excluded.next_run_at, id_form = excluded.id_form, origin = excluded.origin,
        version = sources.version + 1,
        not_before = CASE WHEN {same} AND sources.not_before_reason IS DISTINCT FROM 'set_aside'
            THEN sources.not_before END,
        not_before_reason = CASE WHEN {same} THEN nullif(sources.not_before_reason, 'set_aside') END,
        late_after = NULL, deaths = 0, death_cause = NULL, misses = CASE WHEN {same} THEN sources.misses ELSE 0 END,
        answered_at = CASE WHEN {same} THEN sources.answered_at END,
        rest = CASE WHEN {same} THEN sources.rest END, moved_to = CASE WHEN {same} THEN sources.moved_to END,
        moved_count = CASE WHEN {same} THEN sources.moved_count ELSE 0 END, gone_reason = NULL,
        -- 1 for a new one; to one that there is, what is added
        mapping_version = sources.mapping_version + excluded.mapping_version - 1, updated_at = clock_timestamp()
""".replace("{same}", "sources.config -> 'request' = excluded.config -> 'request'")
)


def _write(connection: Connection, changes: list[_Change]) -> None:
    rows = [
        {
            "name": change.source.name,
            "type": change.revision.document["type"],
            "config": change.revision.document,
            "enabled": change.source.enabled,
            "next_run_at": change.next_run_at,
            "id_form": change.revision.id_form,
            "remapped": int(change.revision.is_remapped or change.revision.is_judged),
        }
        for change in changes
    ]
    if rows:
        connection.execute(_UPSERT, {"rows": msgspec.json.encode(rows).decode()})
        connection.execute(_JUDGE_ANEW, {"names": [row["name"] for row in rows]})


# How many records are expected may be declared otherwise.
_JUDGE_ANEW = text("""
    UPDATE etl_checkpoints SET size_flag = NULL WHERE source_name = ANY (:names) AND size_flag IS NOT NULL
""")
_LOST = text("SELECT name FROM sources WHERE origin = 'file' AND enabled AND name <> ALL (:names) ORDER BY name")
_DISABLE = text("""
    UPDATE sources SET enabled = false, version = version + 1, updated_at = clock_timestamp() WHERE name = ANY (:names)
""")


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


def get_declared(connection: Connection, name: str) -> dict[str, Any]:
    """A source as it is declared now.

    Raises:
        UnknownSourceError: the name is not known.
    """
    query = text("SELECT config FROM sources WHERE name = :name")
    document: dict[str, Any] | None = connection.execute(query, {"name": name}).scalar()
    if document is None:
        raise UnknownSourceError(f"there is no source named {name!r}", source=name)
    return document
