"""Sources declared: from the file or over the API, all of a document or none of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.versions import keep_versions
from db.statement import text
from etl.declare.credentials import masked
from etl.declare.revision import Declared, Origin, Revision, all_differences, refuse, revise
from etl.declare.source import dump
from etl.errors import ConfigError, SourceOwnedError, SourceRemovalError
from etl.mapping.reader import READER
from etl.runs.schedule import next_slot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from etl.declare.catalog import Scheduled
    from etl.declare.revision import Author, Difference
    from etl.declare.source import AnySource

# Serialises those who declare sources, so that two documents are never mixed.
APPLY_LOCK = 7236150419


@dataclass(frozen=True)
class Applied:
    """What declaring sources changed, by name; the missing are not in the document any more, and go on as they did."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    disabled: tuple[str, ...]
    missing: tuple[str, ...]
    unchanged: tuple[str, ...]
    differences: Mapping[str, list[Difference]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Change:
    """A source that is new or declared otherwise than it was."""

    source: AnySource
    revision: Revision
    next_run_at: datetime
    before: dict[str, Any] | None


def lock_declaring(connection: Connection) -> datetime:
    """Be the only one who declares sources until the transaction ends; the time."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPLY_LOCK})
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def apply_sources(
    connection: Connection, declared: Sequence[Scheduled], author: Author, *, prune: bool = False, dry_run: bool = False
) -> Applied:
    """Make the declared sources those of the database: all of them or, on an error, none.

    Those of the same origin that are not among them are disabled if it is to be pruned; else they go on. A dry run
    only says what would become of them.

    Raises:
        ConfigError: a source would change what identifies its records, or stands over the API.
        SourceOwnedError: a source stands in the file, and is declared otherwise there.
        SourceRemovalError: items of one that had its name are still being deleted.
    """
    now = lock_declaring(connection)
    changes = declare_some(connection, declared, author, now, dry_run=dry_run)
    names = [item.source.name for item in declared]
    lost = tuple(connection.execute(_LOST, {"names": names, "origin": author.origin}).scalars())
    if prune and lost and not dry_run:
        connection.execute(_DISABLE, {"names": list(lost)})
        keep_versions(connection, lost, made_by=author.name, reader=READER)
    touched = {change.source.name for change in changes}
    return Applied(
        created=tuple(change.source.name for change in changes if change.before is None),
        changed=tuple(change.source.name for change in changes if change.before is not None),
        disabled=lost if prune else (),
        missing=() if prune else lost,
        unchanged=tuple(name for name in names if name not in touched),
        differences={
            change.source.name: all_differences(change.before, change.revision.document)
            for change in changes
            if change.before is not None
        },
    )


def declare_some(
    connection: Connection, declared: Sequence[Scheduled], author: Author, now: datetime, *, dry_run: bool = False
) -> list[_Change]:
    """Declare sources; what changed. Who calls it holds the lock."""
    names = [item.source.name for item in declared]
    known = {row.name: row for row in connection.execute(_KNOWN, {"names": names})}
    gone = {row.name: row for row in connection.execute(_GONE, {"names": [n for n in names if n not in known]})}
    changes = []
    for item in declared:
        row = known.get(item.source.name)
        if row is not None and _is_owned(item, row, author):
            continue
        if change := _change(connection, item, row, gone.get(item.source.name), author, now):
            changes.append(change)
    if not dry_run:
        _write(connection, changes, author)
    return changes


_KNOWN = text("""
    SELECT name, config, enabled, next_run_at, id_form, origin FROM sources WHERE name = ANY (:names)
    ORDER BY name FOR UPDATE
""")
# Of a source that had the name before, the last version.
_GONE = text("""
    SELECT n.name, v.document, coalesce(v.document ->> 'id_form', 'plain') AS id_form,
        EXISTS (SELECT 1 FROM source_removals r WHERE r.source_name = n.name AND r.emptied_at IS NULL) AS is_leaving
    FROM unnest(CAST(:names AS text[])) AS n(name)
    CROSS JOIN LATERAL (SELECT document FROM source_versions v WHERE v.source_name = n.name
                        ORDER BY version DESC LIMIT 1) v
""")


def _is_owned(item: Scheduled, known: Row[Any], author: Author) -> bool:
    """Whether the source stands elsewhere, and is declared there as it is here."""
    if known.origin == author.origin or author.adopts:
        return False
    name = item.source.name
    if author.origin is Origin.FILE:
        message = f"source {name!r}: it was declared over the API; ADOPT=1 takes it over into the file"
        raise ConfigError(message, code="owned_by_api")
    document = {**dump(item.source), "schedule": msgspec.to_builtins(item.schedule)}
    if document in (known.config, masked(known.config)):
        return True
    raise SourceOwnedError(f"the source {name!r} stands in the file of sources: change it there", source=name)


def _change(
    connection: Connection,
    item: Scheduled,
    known: Row[Any] | None,
    gone: Row[Any] | None,
    author: Author,
    now: datetime,
) -> _Change | None:
    revision = _revision(item, known, gone, author)
    if revision is None:
        return None
    if gone is not None and gone.is_leaving:
        message = f"items of an earlier source {item.source.name!r} are still being deleted; try again in a moment"
        raise SourceRemovalError(message, source=item.source.name)
    if revision.identity and _has_items(connection, item.source.name):
        raise refuse(item.source, revision.identity)
    due = known.next_run_at if known and revision.keeps_slot else next_slot(item.schedule, now)
    return _Change(item.source, revision, due, known.config if known else None)


def _revision(item: Scheduled, known: Row[Any] | None, gone: Row[Any] | None, author: Author) -> Revision | None:
    if known is not None:
        revision = revise(item, Declared(known.config, known.enabled, known.id_form))
        if revision is None and known.origin != author.origin:
            return Revision(known.config, keeps_slot=True, id_form=known.id_form)
        return revision
    # Its records are still known: what identifies them stays, and what maps them otherwise makes others of them.
    before = None if gone is None else Declared(gone.document, enabled=False, id_form=gone.id_form)
    return revise(item, before) or revise(item, None)


def _has_items(connection: Connection, name: str) -> bool:
    query = text("SELECT EXISTS (SELECT 1 FROM unified_items WHERE source_name = :name AND status = 'active')")
    return bool(connection.execute(query, {"name": name}).scalar_one())


# What a server asked for holds for as long as the same is asked of it.
_UPSERT = text(
    """
    INSERT INTO sources (name, type, config, enabled, next_run_at, id_form, origin, version, mapping_version)
    SELECT name, type, config, enabled, next_run_at, id_form, :origin, 1 + coalesce(gone.version, 0),
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


def _write(connection: Connection, changes: list[_Change], author: Author) -> None:
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
    if not rows:
        return
    names = [row["name"] for row in rows]
    connection.execute(_UPSERT, {"rows": msgspec.json.encode(rows).decode(), "origin": author.origin})
    connection.execute(_JUDGE_ANEW, {"names": names})
    remapped = [change.source.name for change in changes if change.revision.is_remapped]
    keep_versions(connection, names, made_by=author.name, reader=READER, remapped=remapped)


# How many records are expected may be declared otherwise.
_JUDGE_ANEW = text("""
    UPDATE etl_checkpoints SET size_flag = NULL WHERE source_name = ANY (:names) AND size_flag IS NOT NULL
""")
_LOST = text("SELECT name FROM sources WHERE origin = :origin AND enabled AND name <> ALL (:names) ORDER BY name")
_DISABLE = text("""
    UPDATE sources SET enabled = false, config = config || '{"enabled": false}', version = version + 1,
        updated_at = clock_timestamp() WHERE name = ANY (:names)
""")
