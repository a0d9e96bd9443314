"""Sources as they are listed, shown, exported and chosen for what is done to many."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from db.queries.share import IS_SET_ASIDE, TAKEN_BACK
from db.statement import text
from db.states import ACTIVE_RUN, IS_PAUSED
from etl.errors import UnknownSourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

# A pause without an end, in SQL.
FOR_EVER = "timestamptz '9999-12-31 00:00Z'"


class State(StrEnum):
    """What sources may be looked for by."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    PAUSED = "paused"
    SET_ASIDE = "set_aside"
    GONE = "gone"
    FAILING = "failing"
    LATE = "late"
    ACTIVE = "active"
    RUNNABLE = "runnable"


_IS_ACTIVE = f"""EXISTS (
    SELECT 1 FROM etl_runs r WHERE r.source_name = s.name AND r.lane = 'fetch' AND r.{ACTIVE_RUN})"""
_STATES = {
    State.ENABLED: "s.enabled",
    State.DISABLED: "NOT s.enabled",
    State.PAUSED: IS_PAUSED,
    State.SET_ASIDE: IS_SET_ASIDE,
    State.GONE: "s.gone_reason IS NOT NULL",
    State.FAILING: "s.enabled AND c.last_status = 'failed'",
    State.LATE: "s.enabled AND s.late_since IS NOT NULL",
    State.ACTIVE: _IS_ACTIVE,
    State.RUNNABLE: f"""s.enabled AND s.gone_reason IS NULL AND NOT {IS_PAUSED} AND NOT {IS_SET_ASIDE}
        AND NOT {_IS_ACTIVE}""",
}
_CONDITIONS = {
    "names": "s.name = ANY (:names)",
    "type": "s.type = :type",
    "origin": "s.origin = :origin",
    "tags": "s.config -> 'tags' ?& CAST(:tags AS text[])",
    "name": "s.name LIKE :name ESCAPE '!'",
}


@dataclass(frozen=True)
class Chosen:
    """Which sources are meant: by all that is given. `name` is a part of it; of tags, each is needed."""

    names: Sequence[str] | None = None
    type: str | None = None
    origin: str | None = None
    tags: Sequence[str] | None = None
    name: str | None = None
    state: State | None = None
    values: dict[str, Any] = field(init=False, repr=False)
    condition: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = {key: getattr(self, key) for key in _CONDITIONS if getattr(self, key) is not None}
        conditions = [_CONDITIONS[key] for key in given] + ([_STATES[self.state]] if self.state else [])
        if "name" in given:
            given["name"] = f"%{given['name'].replace('!', '!!').replace('_', '!_').replace('%', '!%')}%"
        object.__setattr__(self, "values", {k: list(v) if k in {"names", "tags"} else v for k, v in given.items()})
        object.__setattr__(self, "condition", " AND ".join(f"({one})" for one in conditions) or "true")


_SHOWN = f"""
    SELECT s.name, s.type, s.enabled, s.origin, s.version, s.mapping_version, s.config, s.created_at, s.updated_at,
        coalesce(s.config -> 'tags', '[]'::jsonb) AS tags, s.config -> 'schedule' AS schedule,
        {IS_PAUSED} AS paused, nullif(s.paused_until, {FOR_EVER}) AS paused_until,
        CASE WHEN s.enabled AND s.gone_reason IS NULL THEN s.next_run_at END AS next_run_at,
        s.not_before, s.not_before_reason, s.gone_reason, s.late_since, s.late_after,
        {IS_SET_ASIDE} AS set_aside, c.last_status, c.last_run_at, c.last_success_at, c.last_failure_at, c.size_flag,
        c.total_items
    FROM sources s LEFT JOIN etl_checkpoints c ON c.source_name = s.name
"""


def list_sources(connection: Connection, chosen: Chosen, after: str, limit: int) -> list[Row[Any]]:
    """Sources by name, from one on."""
    query = f"{_SHOWN} WHERE s.name > :after AND {chosen.condition} ORDER BY s.name LIMIT :limit"
    return list(connection.execute(text(query), {**chosen.values, "after": after, "limit": limit}))


# Of each of these sources: the last runs of fetching, the oldest first, and how many rejected records are open.
RECENT_RUNS = 20
MOST_OPEN = 1000
_DETAILS = text("""
    SELECT s.name, coalesce(r.runs, '[]') AS runs, o.open
    FROM unnest(CAST(:names AS text[])) AS s(name)
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object('run_id', l.run_id, 'status', l.status, 'records', l.records_extracted,
                'seconds', l.seconds, 'created_at', l.created_at) ORDER BY l.created_at, l.run_id) AS runs
        FROM (SELECT run_id, status, records_extracted, created_at,
                extract(epoch FROM completed_at - started_at)::float8 AS seconds
              FROM etl_runs WHERE source_name = s.name AND lane = 'fetch'
              ORDER BY created_at DESC, run_id DESC LIMIT :runs) l) r
    CROSS JOIN LATERAL (
        SELECT count(*) AS open FROM (
            SELECT 1 FROM rejected_records q WHERE q.source_name = s.name AND q.state = 'open' LIMIT :most) counted) o
""")


def details_of(connection: Connection, names: Sequence[str], runs: int = RECENT_RUNS) -> dict[str, Row[Any]]:
    """By their names: the last so many runs, and the open rejects, counted up to 1,000."""
    values = {"names": list(names), "runs": runs, "most": MOST_OPEN}
    return {row.name: row for row in connection.execute(_DETAILS, values)}


def get_source(connection: Connection, name: str) -> Row[Any]:
    """One source.

    Raises:
        UnknownSourceError: there is none.
    """
    query = text(f"{_SHOWN} WHERE s.name = :name")
    row = connection.execute(query, {"name": name}).first()
    if row is None:
        raise UnknownSourceError(f"there is no source named {name!r}", source=name)
    return row


def chosen_names(connection: Connection, chosen: Chosen) -> list[str]:
    """The names of all that are meant.

    Raises:
        UnknownSourceError: one that is named is not known.
    """
    query = text(f"""
        SELECT s.name FROM sources s LEFT JOIN etl_checkpoints c ON c.source_name = s.name
        WHERE {chosen.condition} ORDER BY s.name
    """)
    names = list(connection.execute(query, chosen.values).scalars())
    missing = set(chosen.names or ()) - set(names) if chosen == Chosen(chosen.names) else set()
    if missing:
        name = min(missing)
        raise UnknownSourceError(f"there is no source named {name!r}", source=name)
    return names


def list_declared(connection: Connection, chosen: Chosen, after: str, limit: int) -> list[Row[Any]]:
    """Names and documents, from one name on."""
    query = f"""
        SELECT s.name, s.config FROM sources s LEFT JOIN etl_checkpoints c ON c.source_name = s.name
        WHERE s.name > :after AND {chosen.condition} ORDER BY s.name LIMIT :limit
    """
    return list(connection.execute(text(query), {**chosen.values, "after": after, "limit": limit}))


def pause_sources(connection: Connection, names: Sequence[str], until: Any) -> int:
    """Pause sources until a time, or until they are resumed; how many."""
    query = text(f"""
        UPDATE sources s SET paused_until = coalesce(:until, {FOR_EVER}),
            paused_at = CASE WHEN {IS_PAUSED} THEN paused_at ELSE clock_timestamp() END
        WHERE name = ANY (:names)
    """)
    return connection.execute(query, {"names": list(names), "until": until}).rowcount


def resume_sources(connection: Connection, names: Sequence[str]) -> int:
    """End pauses, and times of being set aside; how many."""
    query = text(f"""
        UPDATE sources s SET paused_until = NULL, paused_at = NULL, {TAKEN_BACK}
        WHERE name = ANY (:names) AND ({IS_PAUSED} OR deaths > 0 OR not_before_reason = 'set_aside')
    """)
    return connection.execute(query, {"names": list(names)}).rowcount


def list_versions(connection: Connection, name: str, before: int | None, limit: int) -> list[Row[Any]]:
    """The versions of a source, also of one that is no more, the newest first."""
    query = text("""
        SELECT version, mapping_version, made_at, made_by, document FROM source_versions
        WHERE source_name = :name AND (CAST(:before AS integer) IS NULL OR version < :before)
        ORDER BY version DESC LIMIT :limit
    """)
    return list(connection.execute(query, {"name": name, "before": before, "limit": limit}))


def list_fields(connection: Connection, name: str) -> list[Row[Any]]:
    """What the fields of a source's records and items have been like; at most 2,000."""
    query = text("""
        SELECT scope, field, first_seen_at, last_seen_at, seen, kinds, sample, drift, mapping_version
        FROM source_fields WHERE source_name = :name ORDER BY (drift IS NULL), scope, field LIMIT 2000
    """)
    return list(connection.execute(query, {"name": name}))
