"""Messages on their way: written with what they tell of, taken one by one, and kept until they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.counters import ALERTS, add_count
from db.queries.old_rows import delete_old
from db.statement import text
from etl.alerts.incident import Delivery
from etl.errors import UnknownAlertError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from sqlalchemy import Connection, Row

    from etl.alerts.destination import Destination
    from etl.alerts.message import Alert

# For so long a message that is being sent belongs to who has taken it: seconds.
LEASE = 90
# A message that was not taken for so long is given up: hours.
GIVEN_UP_AFTER = 24
LONGEST_WAIT = 300.0
# What was tried so often in vain, for more than half an hour, may be what is wrong: others are tried without it.
IN_ORDER = 12
SENDING_LOCK = 723615

_ADD = text("""
    INSERT INTO alert_outbox (alert_id, event, kind, title, body, facts)
    VALUES (:alert_id, :event, :kind, :title, :body, CAST(:facts AS jsonb))
    ON CONFLICT (alert_id) DO NOTHING RETURNING alert_id
""")
_ADDRESS = text("""
    INSERT INTO alert_deliveries (alert_id, destination, created_at)
    SELECT alert_id, :destination, created_at FROM alert_outbox WHERE alert_id = :alert_id ON CONFLICT DO NOTHING
""")


def add_alert(connection: Connection, alert: Alert, destinations: Iterable[Destination]) -> bool:
    """Keep a message until it is sent to each of these; False when it is kept already."""
    values = {
        "alert_id": alert.alert_id,
        "event": alert.event,
        "kind": alert.kind,
        "title": alert.title,
        "body": alert.body,
        "facts": msgspec.json.encode(alert.facts).decode(),
    }
    if connection.execute(_ADD, values).first() is None:
        return False
    address_alert(connection, alert.alert_id, destinations)
    return True


def address_alert(connection: Connection, alert_id: UUID, destinations: Iterable[Destination]) -> None:
    """Send a message that is kept to each of these too, before all that was told later."""
    for name in dict.fromkeys(one.name for one in destinations):
        connection.execute(_ADDRESS, {"alert_id": alert_id, "destination": name})


@dataclass(frozen=True)
class Taken:
    """A message that is to be sent now. `attempts` counts this one."""

    alert_id: UUID
    event: str
    title: str
    body: str
    facts: dict[str, Any]
    created_at: datetime
    attempts: int


# One process at a time sends to an address: what is told later must not arrive sooner.
_LOCK = text("SELECT pg_advisory_xact_lock(:lock, hashtext(:destination))")
_TAKE = text(f"""
    UPDATE alert_deliveries d
    SET attempts = d.attempts + 1, taken_until = clock_timestamp() + interval '{LEASE} s'
    FROM (SELECT alert_id FROM alert_deliveries n
          WHERE destination = :destination AND state = 'pending' AND due_at <= clock_timestamp()
            AND NOT EXISTS (SELECT 1 FROM alert_deliveries t
                            WHERE t.destination = :destination AND t.state = 'pending'
                              AND t.taken_until > clock_timestamp())
            AND NOT EXISTS (SELECT 1 FROM alert_deliveries o
                            WHERE o.destination = :destination AND o.state = 'pending' AND NOT o.refused
                              AND o.attempts < {IN_ORDER}
                              AND o.due_at > clock_timestamp() AND o.created_at < n.created_at)
            AND NOT EXISTS (SELECT 1 FROM alert_deliveries s
                            WHERE s.destination = :destination AND s.sent_at <= clock_timestamp()
                              AND s.sent_at > clock_timestamp() - make_interval(secs => :digest))
          ORDER BY created_at LIMIT :most FOR UPDATE) due, alert_outbox a
    WHERE d.alert_id = due.alert_id AND d.destination = :destination AND a.alert_id = d.alert_id
    RETURNING d.alert_id, a.event, a.title, a.body, a.facts, a.created_at, d.attempts
""")


def take_alerts(connection: Connection, destination: str, most: int, digest: timedelta) -> list[Taken]:
    """The oldest messages that are due to a destination, at most so many, which are the caller's for 90 s.

    None while another has some of them, and none within `digest` of those that were sent before.
    """
    connection.execute(_LOCK, {"lock": SENDING_LOCK, "destination": destination})
    values = {"destination": destination, "most": most, "digest": digest.total_seconds()}
    rows = connection.execute(_TAKE, values).all()
    return sorted((Taken(**row._asdict()) for row in rows), key=lambda one: (one.created_at, one.alert_id))


_SENT = text("""
    UPDATE alert_deliveries SET state = 'sent', sent_at = clock_timestamp(), taken_until = NULL, error = NULL
    WHERE alert_id = ANY (:ids) AND destination = :destination AND state = 'pending'
""")
_NOT_SENT = text(f"""
    UPDATE alert_deliveries
    SET error = :error, refused = :alone, due_at = clock_timestamp() + make_interval(secs => :wait), taken_until = NULL,
        state = CASE WHEN created_at < clock_timestamp() - interval '{GIVEN_UP_AFTER} h' THEN 'failed' ELSE state END
    WHERE alert_id = ANY (:ids) AND destination = :destination AND state = 'pending'
    RETURNING state
""")
# The others wait with it: what is told later must not arrive sooner.
_HOLD_BACK = text("""
    UPDATE alert_deliveries SET due_at = greatest(due_at, clock_timestamp() + make_interval(secs => :wait))
    WHERE destination = :destination AND state = 'pending'
""")


def note_sent(connection: Connection, destination: str, ids: Sequence[UUID]) -> None:
    """These have arrived."""
    sent = connection.execute(_SENT, {"ids": list(ids), "destination": destination}).rowcount
    add_count(connection, ALERTS, Delivery.SENT, sent)


def note_failed(
    connection: Connection, destination: str, ids: Sequence[UUID], error: str, wait: float, *, alone: bool
) -> None:
    """These have not, and are sent again after so many seconds; given up after a day.

    `alone` says that the destination took no offence at others: they need not wait.
    """
    # PostgreSQL keeps no NUL.
    said = error.replace("\0", "")
    values = {"ids": list(ids), "destination": destination, "error": said, "wait": wait, "alone": alone}
    states = connection.execute(_NOT_SENT, values).scalars().all()
    if not alone:
        connection.execute(_HOLD_BACK, {"destination": destination, "wait": wait})
    add_count(connection, ALERTS, Delivery.FAILED, sum(state == Delivery.FAILED for state in states))


_GIVE_UP = text(f"""
    UPDATE alert_deliveries SET state = 'failed', error = coalesce(error, 'no such address is set any more')
    WHERE state = 'pending' AND destination <> ALL (:known)
      AND created_at < clock_timestamp() - interval '{GIVEN_UP_AFTER} h'
""")


def give_up_unknown(connection: Connection, known: Collection[str]) -> None:
    """Messages to addresses that nobody knows any more are given up after a day."""
    given_up = connection.execute(_GIVE_UP, {"known": list(known)}).rowcount
    add_count(connection, ALERTS, Delivery.FAILED, given_up)


def purge_alerts(connection: Connection, retention: timedelta, limit: int) -> int:
    """Remove some of the messages that are older, however they ended, and mutes that ended so long ago."""
    ended = text("DELETE FROM alert_mutes WHERE until < clock_timestamp() - make_interval(secs => :seconds)")
    connection.execute(ended, {"seconds": retention.total_seconds()})
    return delete_old(connection, "alert_outbox", "alert_id", "created_at", retention, limit)


_LISTED = """
    SELECT a.alert_id, a.event, a.kind, a.title, a.body AS message, a.facts, a.created_at,
        coalesce((SELECT jsonb_agg(jsonb_build_object('destination', d.destination, 'state', d.state,
                'attempts', d.attempts, 'due_at', CASE WHEN d.state = 'pending' THEN d.due_at END,
                'sent_at', d.sent_at, 'error', d.error) ORDER BY d.destination)
            FROM alert_deliveries d WHERE d.alert_id = a.alert_id), '[]') AS deliveries
    FROM alert_outbox a
"""
_LIST = text(f"""
    {_LISTED}
    WHERE CAST(:before AS timestamptz) IS NULL OR (a.created_at, a.alert_id) < (:before, :before_id)
    ORDER BY a.created_at DESC, a.alert_id DESC LIMIT :limit
""")
_FIND = text(f"{_LISTED} WHERE a.alert_id = :alert_id")


def list_alerts(connection: Connection, before: tuple[datetime, UUID] | None, limit: int) -> list[Row[Any]]:
    """Messages with how far each is on its way, the newest first, after the one that `before` names."""
    at, alert_id = before or (None, None)
    return list(connection.execute(_LIST, {"before": at, "before_id": alert_id, "limit": limit}))


def find_alert(connection: Connection, alert_id: UUID) -> Row[Any]:
    """A message with how far it is on its way.

    Raises:
        UnknownAlertError: there is none, or not any more.
    """
    row = connection.execute(_FIND, {"alert_id": alert_id}).first()
    if row is None:
        raise UnknownAlertError(f"there is no alert {alert_id}")
    return row


def count_pending(connection: Connection) -> int:
    """How many messages are on their way."""
    return int(connection.execute(text("SELECT count(*) FROM alert_deliveries WHERE state = 'pending'")).scalar_one())
