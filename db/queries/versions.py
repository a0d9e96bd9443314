"""Versions of sources: what each was declared as, and which of them a run reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.statement import text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

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
