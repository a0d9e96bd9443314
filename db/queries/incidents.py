"""The ledger of alerts in tables: read whole, judged, and written where it changed. One process does it at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from db.statement import text
from etl.alerts.cause import Cause, Member
from etl.alerts.incident import Incident, Told
from etl.alerts.ledger import Ledger, Mutes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection

ALERTS_LOCK = 7236150432

_MEMBERS = text("SELECT cause, name, source_name, since, due_at, times, message, tags FROM alert_members")
_INCIDENTS = text("""
    SELECT cause, stands, changed_at, told, told_at, told_members, told_times, incident_id, affected, names, tags
    FROM alert_incidents
""")
_MUTES = text("SELECT scope, subject FROM alert_mutes WHERE until > clock_timestamp()")


def lock_ledger(connection: Connection) -> bool:
    """Have the ledger alone until the transaction ends; False when another process has it."""
    query = text("SELECT pg_try_advisory_xact_lock(:lock)")
    return bool(connection.execute(query, {"lock": ALERTS_LOCK}).scalar_one())


def read_ledger(connection: Connection, reminded: timedelta) -> Ledger:
    """All that is known of what stands, and of what was told."""
    members = [
        Member(
            Cause.of_key(row.cause),
            row.name,
            row.since,
            row.due_at,
            row.message,
            row.times,
            source=row.source_name,
            tags=tuple(row.tags),
        )
        for row in connection.execute(_MEMBERS)
    ]
    incidents = [
        Incident(
            Cause.of_key(row.cause),
            row.changed_at,
            row.stands,
            Told(row.told),
            row.told_at,
            row.told_members,
            tuple(row.told_times),
            row.incident_id,
            row.affected,
            tuple(row.names),
            tuple(row.tags),
        )
        for row in connection.execute(_INCIDENTS)
    ]
    return Ledger(members, incidents, read_mutes(connection), reminded, uuid4)


def read_mutes(connection: Connection) -> Mutes:
    """What nobody wants to be told of now."""
    rows = connection.execute(_MUTES).all()
    named = {
        scope: frozenset(row.subject for row in rows if row.scope == scope) for scope in ("cause", "source", "tag")
    }
    is_all = any(row.scope == "all" for row in rows)
    return Mutes(is_all, named["cause"], named["source"], named["tag"])


_WRITE_MEMBERS = text("""
    INSERT INTO alert_members AS m (cause, name, source_name, since, due_at, times, message, tags)
    SELECT cause, name, source_name, since, due_at, times, message, tags FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r(cause text, name text, source_name text, since timestamptz, due_at timestamptz, times integer,
             message text, tags text[])
    ON CONFLICT (cause, name) DO UPDATE SET since = excluded.since, due_at = excluded.due_at, times = excluded.times,
        message = excluded.message, tags = excluded.tags
""")
_WRITE_INCIDENTS = text("""
    INSERT INTO alert_incidents (cause, stands, changed_at, told, told_at, told_members, told_times, incident_id,
        affected, names, tags)
    SELECT cause, stands, changed_at, told, told_at, told_members, told_times, incident_id, affected, names, tags
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r(cause text, stands boolean, changed_at timestamptz, told text, told_at timestamptz, told_members integer,
             told_times timestamptz[], incident_id uuid, affected integer, names text[], tags text[])
    ON CONFLICT (cause) DO UPDATE SET stands = excluded.stands, changed_at = excluded.changed_at, told = excluded.told,
        told_at = excluded.told_at, told_members = excluded.told_members, told_times = excluded.told_times,
        incident_id = excluded.incident_id, affected = excluded.affected, names = excluded.names, tags = excluded.tags
""")
_FORGET_MEMBERS = text("""
    DELETE FROM alert_members m USING jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(cause text, name text)
    WHERE m.cause = r.cause AND m.name = r.name
""")
_FORGET_INCIDENTS = text("""
    DELETE FROM alert_incidents i USING jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(cause text)
    WHERE i.cause = r.cause
""")


def write_ledger(
    connection: Connection,
    ledger: Ledger,
    members_before: Mapping[tuple[Cause, str], Member],
    incidents_before: Mapping[Cause, Incident],
) -> None:
    """Write what is otherwise than before."""
    members = ledger.members
    gone = [{"cause": cause.key, "name": name} for cause, name in members_before if (cause, name) not in members]
    _execute(connection, _FORGET_MEMBERS, gone)
    over = [{"cause": cause.key} for cause in incidents_before if cause not in ledger.incidents]
    _execute(connection, _FORGET_INCIDENTS, over)
    changed = [_of_member(one) for key, one in members.items() if one != members_before.get(key)]
    _execute(connection, _WRITE_MEMBERS, changed)
    news = [_of_incident(one) for cause, one in ledger.incidents.items() if one != incidents_before.get(cause)]
    _execute(connection, _WRITE_INCIDENTS, news)


def _execute(connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(statement, {"rows": msgspec.json.encode(rows).decode()})


def _of_member(member: Member) -> dict[str, Any]:
    return {
        "cause": member.cause.key,
        "name": member.name,
        "source_name": member.source,
        "since": member.since,
        "due_at": member.due_at,
        "times": member.times,
        "message": member.message,
        "tags": member.tags,
    }


def _of_incident(incident: Incident) -> dict[str, Any]:
    return {
        "cause": incident.cause.key,
        "stands": incident.stands,
        "changed_at": incident.changed_at,
        "told": incident.told,
        "told_at": incident.told_at,
        "told_members": incident.told_members,
        "told_times": incident.told_times,
        "incident_id": incident.incident_id,
        "affected": incident.affected,
        "names": incident.names,
        "tags": incident.audiences,
    }


_STANDING = text("""
    SELECT i.cause, i.changed_at AS since, i.told, i.told_at, i.incident_id, i.affected AS sources_total, i.names,
        (SELECT min(m.message) FROM alert_members m WHERE m.cause = i.cause) AS message
    FROM alert_incidents i WHERE i.stands ORDER BY i.changed_at DESC, i.cause LIMIT :limit
""")


def list_standing(connection: Connection, limit: int) -> list[Any]:
    """The causes that stand, the newest first."""
    return list(connection.execute(_STANDING, {"limit": limit}))
