"""API keys: made, looked up, listed, renewed and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.statement import text
from etl.access.keys import StoredKey, make_key
from etl.access.roles import Role
from etl.errors import KeyReplacedError, UnknownKeyError

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from etl.access.keys import NewKey

# A use within so many seconds of the last one that was noted is not noted.
NOTED_SECONDS = 60
_SHOWN = "key_id, prefix, name, role, created_at, created_by, expires_at, last_used_at, revoked_at"


def find_key(connection: Connection, prefix: str) -> tuple[StoredKey, datetime] | None:
    """The key of a prefix, and the time; None where there is none."""
    query = text("""
        SELECT key_id, prefix, hash, name, role, expires_at, revoked_at, last_used_at AS used_at,
            clock_timestamp() AS now
        FROM api_keys WHERE prefix = :prefix
    """)
    row = connection.execute(query, {"prefix": prefix}).first()
    if row is None:
        return None
    values = row._asdict()
    now: datetime = values.pop("now")
    return StoredKey(**{**values, "role": Role(row.role)}), now


def note_use(connection: Connection, key_id: int) -> None:
    """Note that a key was used, at most once a minute."""
    query = text("""
        UPDATE api_keys SET last_used_at = clock_timestamp()
        WHERE key_id = :key_id
          AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - make_interval(secs => :seconds))
    """)
    connection.execute(query, {"key_id": key_id, "seconds": NOTED_SECONDS})


def create_key(
    connection: Connection, name: str, role: Role, created_by: str, expires_at: datetime | None = None
) -> tuple[Row[Any], NewKey]:
    """Make a key: how it is shown, and the key itself, which is not kept."""
    new = make_key()
    query = text(f"""
        INSERT INTO api_keys (prefix, hash, name, role, created_by, expires_at)
        VALUES (:prefix, :hash, :name, :role, :created_by, :expires_at) RETURNING {_SHOWN}
    """)
    values = {"prefix": new.prefix, "hash": new.hash, "name": name, "role": role}
    row = connection.execute(query, {**values, "created_by": created_by, "expires_at": expires_at}).one()
    return row, new


def list_keys(connection: Connection, *, limit: int, after: int = 0) -> list[Row[Any]]:
    """Keys in the order in which they were made, those that were taken back too."""
    query = text(f"SELECT {_SHOWN} FROM api_keys WHERE key_id > :after ORDER BY key_id LIMIT :limit")
    return list(connection.execute(query, {"after": after, "limit": limit}))


def revoke_key(connection: Connection, key_id: int) -> Row[Any]:
    """Take a key back for good.

    Raises:
        UnknownKeyError: there is none, or none any more.
    """
    query = text(f"""
        UPDATE api_keys SET revoked_at = clock_timestamp() WHERE key_id = :key_id AND revoked_at IS NULL
        RETURNING {_SHOWN}
    """)
    return _found(connection.execute(query, {"key_id": key_id}).first(), key_id)


def rotate_key(connection: Connection, key_id: int, created_by: str, keep_seconds: float) -> tuple[Row[Any], NewKey]:
    """Make another key with the name, role and end of one, which goes on for so many seconds.

    Raises:
        UnknownKeyError: there is none, or none any more.
        KeyReplacedError: it was replaced before, and only goes on until its end.
    """
    query = text(f"""
        SELECT {_SHOWN}, replaced_by FROM api_keys
        WHERE key_id = :key_id AND revoked_at IS NULL
          AND (expires_at IS NULL OR expires_at > clock_timestamp()) FOR UPDATE
    """)
    old = _found(connection.execute(query, {"key_id": key_id}).first(), key_id)
    if old.replaced_by is not None:
        raise KeyReplacedError(f"the key {key_id} was replaced by {old.replaced_by} already; rotate that one")
    made = create_key(connection, old.name, Role(old.role), created_by, old.expires_at)
    end = text("""
        UPDATE api_keys SET replaced_by = :replaced_by,
            expires_at = least(expires_at, clock_timestamp() + make_interval(secs => :keep))
        WHERE key_id = :key_id
    """)
    connection.execute(end, {"key_id": key_id, "keep": keep_seconds, "replaced_by": made[0].key_id})
    return made


def _found(row: Row[Any] | None, key_id: int) -> Row[Any]:
    if row is None:
        raise UnknownKeyError(f"there is no key {key_id} that counts")
    return row
