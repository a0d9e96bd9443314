"""Sessions of the pages, and the links that begin them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from db.queries.old_rows import delete_old
from db.statement import text
from etl.access.keys import hash_key
from etl.access.roles import Role
from etl.access.sessions import LINK_LASTS, SESSION_LASTS, Holder, make_token
from etl.errors import UnknownSessionError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Row

# Those that are over are kept for a while, to be seen.
KEPT = timedelta(days=30)
_GOOD = """
    ended_at IS NULL AND s.expires_at > clock_timestamp()
    AND (s.key_id IS NULL OR k.revoked_at IS NULL AND coalesce(k.expires_at > clock_timestamp(), true))
"""


def create_link(connection: Connection, name: str, role: Role) -> str:
    """Make a link's token: it begins one session."""
    token = make_token()
    query = text("""
        INSERT INTO sessions (name, role, link_hash, expires_at)
        VALUES (:name, :role, :hash, clock_timestamp() + make_interval(secs => :seconds))
    """)
    values = {"name": name, "role": role, "hash": hash_key(token), "seconds": LINK_LASTS.total_seconds()}
    connection.execute(query, values)
    return token


def redeem_link(connection: Connection, link: str) -> tuple[Holder, str] | None:
    """Begin the session of a link: who it acts for, and its token. None for a link that does not count any more."""
    token = make_token()
    query = text("""
        UPDATE sessions SET link_hash = NULL, token_hash = :hash,
            expires_at = clock_timestamp() + make_interval(secs => :seconds)
        WHERE link_hash = :link AND ended_at IS NULL AND expires_at > clock_timestamp()
        RETURNING session_id, name, role, mark, key_id
    """)
    values = {"link": hash_key(link), "hash": hash_key(token), "seconds": SESSION_LASTS.total_seconds()}
    row = connection.execute(query, values).first()
    return (_holder(row), token) if row else None


def begin_session(connection: Connection, holder: Holder) -> str:
    """Begin a session of who holds a key; its token."""
    token = make_token()
    query = text("""
        INSERT INTO sessions (name, role, mark, key_id, token_hash, expires_at)
        VALUES (:name, :role, :mark, :key_id, :hash, clock_timestamp() + make_interval(secs => :seconds))
    """)
    values = {"name": holder.name, "role": holder.role, "mark": holder.mark, "key_id": holder.key_id}
    connection.execute(query, {**values, "hash": hash_key(token), "seconds": SESSION_LASTS.total_seconds()})
    return token


def find_session(connection: Connection, token: str, of_settings: Collection[str]) -> Holder | None:
    """Who a session acts for, None when it is over; `of_settings` are the marks of the keys that stand there."""
    query = text(f"""
        SELECT s.session_id, s.name, s.role, s.mark, s.key_id
        FROM sessions s LEFT JOIN api_keys k USING (key_id) WHERE token_hash = :hash AND {_GOOD}
    """)
    row = connection.execute(query, {"hash": hash_key(token)}).first()
    if row is None or (row.mark is not None and row.key_id is None and row.mark not in of_settings):
        return None
    return _holder(row)


def end_session(connection: Connection, token: str) -> None:
    """End a session at the wish of its holder."""
    query = text("UPDATE sessions SET ended_at = clock_timestamp() WHERE token_hash = :hash AND ended_at IS NULL")
    connection.execute(query, {"hash": hash_key(token)})


def list_sessions(connection: Connection, limit: int) -> list[Row[Any]]:
    """Sessions that go on, and links that nobody used yet; the newest first."""
    query = text(f"""
        SELECT session_id, s.name, s.role, s.created_at, s.expires_at, link_hash IS NOT NULL AS is_link
        FROM sessions s LEFT JOIN api_keys k USING (key_id) WHERE {_GOOD} ORDER BY session_id DESC LIMIT :limit
    """)
    return list(connection.execute(query, {"limit": limit}))


def revoke_session(connection: Connection, session_id: int) -> Row[Any]:
    """End a session, whoever holds it.

    Raises:
        UnknownSessionError: there is none that goes on.
    """
    query = text("""
        UPDATE sessions SET ended_at = clock_timestamp()
        WHERE session_id = :session_id AND ended_at IS NULL AND expires_at > clock_timestamp()
        RETURNING session_id, name, role
    """)
    row = connection.execute(query, {"session_id": session_id}).first()
    if row is None:
        raise UnknownSessionError(f"there is no session {session_id} that goes on")
    return row


def purge_sessions(connection: Connection, limit: int) -> int:
    """Remove some of the sessions that were over long ago; how many."""
    return delete_old(connection, "sessions", "session_id", "expires_at", KEPT, limit)


def _holder(row: Row[Any]) -> Holder:
    mark = row.mark if row.mark is not None else f"session:{row.session_id}"
    return Holder(row.name, Role(row.role), mark, row.key_id)
