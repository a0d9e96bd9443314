"""Versions of sources: what each was declared as, and which of them a run reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.statement import text
from db.states import ACTIVE_RUN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

# A source `s` as it is declared now.
DECLARED = "CASE WHEN s.type = 'rss' THEN s.config || jsonb_build_object('id_form', s.id_form) ELSE s.config END"
# The document, its mapping version, and since which of those nothing was mapped otherwise: of the version that the run
# `r` is bound to, or of the source `s` as it is, where a release that kept no versions has written it.
BOUND = f"""coalesce(
    (SELECT jsonb_build_array(v.document, v.mapping_version, v.mapped_since) FROM source_versions v
     WHERE v.source_name = r.source_name AND v.version = r.source_version),
    jsonb_build_array({DECLARED}, s.mapping_version, s.mapping_version))"""


@dataclass(frozen=True)
class Bound:
    """What a run reads its source by."""

    config: dict[str, Any]
    mapping_version: int
    mapped_since: int


_KEEP = text(f"""
    INSERT INTO source_versions (source_name, version, mapping_version, mapped_since, reader, made_by, document)
    SELECT s.name, s.version, s.mapping_version,
        CASE WHEN s.name = ANY (:remapped) THEN s.mapping_version
            ELSE coalesce(before.mapped_since, s.mapping_version) END,
        coalesce(before.reader, :reader), :made_by, {DECLARED}
    FROM sources s
    LEFT JOIN LATERAL (
        SELECT mapped_since, reader FROM source_versions v
        WHERE v.source_name = s.name ORDER BY version DESC LIMIT 1) before ON true
    WHERE s.name = ANY (:names)
    ON CONFLICT DO NOTHING
""")


def keep_versions(
    connection: Connection, names: Sequence[str], made_by: str, reader: int, remapped: Sequence[str] = ()
) -> None:
    """Keep these sources as they are declared now; of those `remapped`, records become items in another way."""
    values = {"names": list(names), "made_by": made_by, "reader": reader, "remapped": list(remapped)}
    connection.execute(_KEEP, values)


@dataclass(frozen=True)
class Mapping:
    """A mapping version: when it was made and by whom, and the document that it was first declared by."""

    mapping_version: int
    made_at: datetime
    made_by: str
    reader: int
    document: dict[str, Any]


_MAPPINGS = text("""
    SELECT * FROM (
        SELECT DISTINCT ON (mapping_version) mapping_version, made_at, made_by, reader, document
        FROM source_versions WHERE source_name = :name ORDER BY mapping_version, version) firsts
    ORDER BY mapping_version DESC LIMIT :limit
""")


def list_mappings(connection: Connection, name: str, limit: int) -> list[Mapping]:
    """The mapping versions of a source, the newest first."""
    rows = connection.execute(_MAPPINGS, {"name": name, "limit": limit})
    return [Mapping(**row._asdict()) for row in rows]


# Of each source so many are kept however old they are, and no more than so many however new.
NEWEST, MOST = 20, 1000
_UNBOUND = f"""NOT EXISTS (
    SELECT 1 FROM etl_runs r WHERE r.source_name = v.source_name AND r.source_version = v.version AND r.{ACTIVE_RUN})"""
_PURGE = text(f"""
    DELETE FROM source_versions WHERE (source_name, version) IN (
        SELECT v.source_name, v.version FROM source_versions v LEFT JOIN sources s ON s.name = v.source_name
        WHERE v.made_at < clock_timestamp() - make_interval(secs => :seconds) AND {_UNBOUND}
          AND v.version <= CASE WHEN s.name IS NOT NULL THEN s.version - {NEWEST}
            -- of one that was deleted the last, from which the next of that name goes on
            ELSE (SELECT max(n.version) - 1 FROM source_versions n WHERE n.source_name = v.source_name) END
        ORDER BY v.made_at LIMIT :limit)
""")
_PURGE_MOST = text(f"""
    DELETE FROM source_versions WHERE (source_name, version) IN (
        SELECT v.source_name, v.version FROM sources s JOIN source_versions v ON v.source_name = s.name
        WHERE s.version > {MOST} AND v.version <= s.version - {MOST} AND {_UNBOUND} LIMIT :limit)
""")


def purge_versions(connection: Connection, retention: timedelta, limit: int) -> int:
    """Remove some of the versions that are old, or too many; how many."""
    removed = connection.execute(_PURGE, {"seconds": retention.total_seconds(), "limit": limit}).rowcount
    return removed + connection.execute(_PURGE_MOST, {"limit": limit}).rowcount
