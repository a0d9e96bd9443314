"""What the database would refuse of a trial's records: they are put into temporary tables like the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy.exc import DBAPIError

from db.copy import copy_rows
from db.queries.batches import copy_staged
from db.statement import text
from etl.errors import StorageError
from etl.item import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from etl.records import Mapped, StagedItem

_MAKE = text("""
    CREATE TEMPORARY TABLE trial_raw (LIKE raw_data INCLUDING DEFAULTS) ON COMMIT DROP;
    CREATE TEMPORARY TABLE trial_staged (LIKE staged_items INCLUDING DEFAULTS) ON COMMIT DROP;
    CREATE TEMPORARY TABLE trial_items (LIKE unified_items INCLUDING ALL) ON COMMIT DROP
""")
_INSERT = text(f"""
    INSERT INTO trial_items (source_type, source_name, run_id, mapping_version, raw_data_id, raw_ingested_at,
                             content_hash, external_id, {", ".join(COLUMNS)})
    SELECT DISTINCT ON (external_id) '', '', gen_random_uuid(), 1, raw_data_id, raw_ingested_at, content_hash,
        external_id, {", ".join(COLUMNS)}
    FROM trial_staged ORDER BY external_id, raw_data_id DESC
""")


# Two previews at once, over all processes and hosts.
_PLACES = text("SELECT pg_try_advisory_lock(7236150427) OR pg_try_advisory_lock(7236150428)")


def take_place(connection: Connection) -> bool:
    """Take one of the two places for previews, for as long as the connection lasts; False when both are taken."""
    return bool(connection.execute(_PLACES).scalar_one())


def refused(connection: Connection, mapped: Mapped) -> dict[int, str]:
    """The records that the database would not take, by their places, and why. Nothing stays.

    Raises:
        StorageError: no temporary tables can be had.
    """
    try:
        connection.execute(_MAKE)
    except DBAPIError as error:
        raise StorageError(f"it makes no temporary tables: {str(error.orig).strip()}") from error
    staged = mapped.staged
    if not staged or _taken(connection, staged) is None:
        return {}
    return dict(_refused(connection, staged))


def _refused(connection: Connection, staged: list[StagedItem]) -> Iterator[tuple[int, str]]:
    for one in staged:
        message = _taken(connection, [one])
        if message is not None:
            yield one.record.raw_id, message


def _taken(connection: Connection, staged: list[StagedItem]) -> str | None:
    """Why the database takes none of these, None if it takes all of them."""
    try:
        with connection.begin_nested() as savepoint:
            _copy_raw(connection, staged)
            copy_staged(connection, "trial_staged", (0, 0), staged)
            connection.execute(_INSERT)
            savepoint.rollback()
    except (DBAPIError, psycopg2.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        return str(cause).strip().splitlines()[0][:500]
    return None


def _copy_raw(connection: Connection, staged: list[StagedItem]) -> None:
    copy_rows(
        connection,
        "trial_raw",
        ("id", "run_id", "source_type", "source_name", "raw_payload", "content_hash"),
        ((one.record.raw_id, _NOBODY, "", "", one.record.payload, one.record.content_hash) for one in staged),
    )


_NOBODY = "00000000-0000-0000-0000-000000000000"
