"""Who calls: the holder of a key, or somebody on this machine without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import structlog
from flask import g, request

from db.queries.keys import NOTED_SECONDS, find_key, note_use
from etl.access.keys import hash_key, is_known, matches, prefix_of
from etl.access.roles import Role
from etl.errors import StorageError, TooSlowError
from web.extensions import service

if TYPE_CHECKING:
    from etl.access.keys import StoredKey


log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Caller:
    """Whoever calls: `name` is what the records of writes say, `mark` tells callers apart.

    `role` is that of the key, None without one.
    """

    name: str
    mark: str
    role: Role | None


# Without a key, on this machine.
NOBODY = Caller("loopback", "loopback", None)


def caller() -> Caller:
    """Who calls now."""
    return cast("Caller", g.caller)


def given_key() -> str | None:
    """The key that a request brings, None without one."""
    given = request.headers.get("X-API-Key", "").strip()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not given and scheme.lower() == "bearer":
        given = token.strip()
    return given or None


def holder(key: str, of_settings: tuple[str, ...]) -> Caller | None:
    """Who holds a key: one of the settings, whose hashes are given, or one that is stored; None if it does not count.

    Raises:
        StorageError: the database, which knows the stored ones, is away.
    """
    if is_known(key, of_settings):
        return Caller("API_KEYS", mark_of_settings(hash_key(key)), Role.ADMIN)
    prefix = prefix_of(key)
    if prefix is None:
        return None
    stored = _good(key, prefix)
    if stored is None:
        return None
    return Caller(f"{stored.name} ({stored.prefix})", f"key:{stored.key_id}", stored.role)


def mark_of_settings(hashed: str) -> str:
    """What tells a key of the settings from others, by its hash."""
    return f"settings:{hashed[-16:]}"


def _good(key: str, prefix: str) -> StoredKey | None:
    database = service().database
    found = database.read(find_key, prefix)
    stored, now = found or (None, None)
    if not matches(key, stored) or stored is None or now is None or not stored.is_good(now):
        return None
    if stored.used_at is None or (now - stored.used_at).total_seconds() > NOTED_SECONDS:
        _note(stored.key_id)
    return stored


def _note(key_id: int) -> None:
    """Note the use of a key; where nothing can be written, reading goes on."""
    try:
        service().database.transact(note_use, key_id)
    except (StorageError, TooSlowError) as error:
        log.warning("key_use_not_noted", reason=error.message)
