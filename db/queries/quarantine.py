"""Quarantine as people see it: cases listed, counted by cause, and put away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.queries.old_rows import delete_old
from db.statement import text
from etl.errors import UnknownCaseError

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy import Connection, Row

_COLUMNS = ", ".join(
    f"r.{name}"
    for name in (
        *("id", "source_name", "source_type", "external_id", "state", "stage", "field", "rule", "value", "message"),
        *("mapping_version", "attempts", "reason", "run_id", "driven_by", "first_seen_at", "last_seen_at"),
    )
)
_SHOWN = f"SELECT {_COLUMNS}, r.raw_data_id IS NOT NULL AS redrivable"


@dataclass(frozen=True)
class Cases:
    """Which cases; None means any."""

    source_name: str | None = None
    state: str | None = "open"
    field: str | None = None
    rule: str | None = None
    run_id: UUID | None = None
    ids: list[int] | None = None

    @property
    def condition(self) -> str:
        """In SQL, of `rejected_records r`."""
        given = [condition for name, condition in _CONDITIONS.items() if getattr(self, name) is not None]
        return " AND ".join(given) or "true"

    @property
    def values(self) -> dict[str, Any]:
        """Its parameters."""
        return {name: value for name, value in vars(self).items() if value is not None}


_CONDITIONS = {
    "source_name": "r.source_name = :source_name",
    "state": "r.state = :state",
    "field": "r.field = :field",
    "rule": "r.rule = :rule",
    "run_id": "r.run_id = :run_id",
    "ids": "r.id = ANY (:ids)",
}


def list_cases(connection: Connection, wanted: Cases, before: int | None, limit: int) -> list[Row[Any]]:
    """Cases, newest first, from an id on."""
    after = "AND r.id < :before" if before is not None else ""
    query = f"""
        {_SHOWN} FROM rejected_records r WHERE {wanted.condition} {after} ORDER BY r.id DESC LIMIT :limit
    """
    return list(connection.execute(text(query), wanted.values | {"before": before, "limit": limit}))


def get_case(connection: Connection, case_id: int) -> Row[Any]:
    """One case with its raw record, as far as that is kept.

    Raises:
        UnknownCaseError: there is none with this id.
    """
    row = connection.execute(_ONE, {"id": case_id}).first()
    if row is None:
        raise UnknownCaseError(f"there is no case {case_id}")
    return row


_ONE = text(f"""
    {_SHOWN}, r.errors, r.earlier, r.raw_data_id, r.raw_bytes, r.raw_truncated,
        (SELECT p.raw_payload::text FROM raw_data p WHERE p.id = r.raw_data_id AND p.ingested_at = r.raw_ingested_at)
            AS raw_payload
    FROM rejected_records r WHERE r.id = :id
""")


def group_cases(connection: Connection, source_name: str | None, limit: int) -> list[Row[Any]]:
    """Open cases by source, field and rule: how many (`count`), since when, and the newest."""
    wanted = Cases(source_name)
    query = f"""
        WITH causes AS (
            SELECT r.source_name, r.field, r.rule, count(*) AS count, min(r.first_seen_at) AS first_seen_at,
                max(r.last_seen_at) AS last_seen_at, max(r.id) AS id
            FROM rejected_records r WHERE {wanted.condition}
            GROUP BY r.source_name, r.field, r.rule
            ORDER BY count(*) DESC, r.source_name, r.field, r.rule LIMIT :limit
        )
        {_SHOWN}, c.count, c.first_seen_at AS since, c.last_seen_at AS latest
        FROM causes c JOIN rejected_records r USING (id) ORDER BY c.count DESC, c.source_name, c.field, c.rule
    """
    return list(connection.execute(text(query), wanted.values | {"limit": limit}))


@dataclass(frozen=True)
class Meant:
    """How many cases are meant, and of how many there is no stored record."""

    cases: int
    not_redrivable: int


def count_cases(connection: Connection, wanted: Cases) -> Meant:
    """How many cases are meant."""
    query = f"""
        SELECT count(*) AS cases, count(*) FILTER (WHERE r.raw_data_id IS NULL) AS not_redrivable
        FROM rejected_records r WHERE {wanted.condition}
    """
    row = connection.execute(text(query), wanted.values).one()
    return Meant(row.cases, row.not_redrivable)


def discard_cases(connection: Connection, wanted: Cases, reason: str) -> int:
    """Put open cases away; how many."""
    query = f"UPDATE rejected_records r SET state = 'discarded', reason = :reason WHERE {wanted.condition}"
    return int(connection.execute(text(query), wanted.values | {"reason": reason}).rowcount)


def purge_cases(connection: Connection, retention: timedelta, limit: int) -> int:
    """Remove some of the cases that are settled, and were not seen for so long; how many.

    A discarded record that is still delivered is seen at every run, and stays discarded.
    """
    return delete_old(connection, "rejected_records", "id", "last_seen_at", retention, limit, only="state <> 'open'")
