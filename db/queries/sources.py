"""Sources: looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.share import IS_SET_ASIDE
from db.statement import text
from etl.errors import UnknownSourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row


def check_known(connection: Connection, name: str) -> None:
    """Tell a name that no source has, or had, from a source of which there is nothing.

    Raises:
        UnknownSourceError: no source has it.
    """
    query = text("""
        SELECT 1 FROM sources WHERE name = :name
        UNION ALL SELECT 1 FROM source_versions WHERE source_name = :name LIMIT 1
    """)
    if connection.execute(query, {"name": name}).first() is None:
        raise UnknownSourceError(f"there is no source named {name!r}", source=name)


def check_declared(connection: Connection, name: str) -> None:
    """Whether there is a source of this name now.

    Raises:
        UnknownSourceError: there is none.
    """
    get_declared(connection, name)


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
