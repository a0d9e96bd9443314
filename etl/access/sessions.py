"""Sessions of the pages: begun by a key or by a link that counts once, and kept in a cookie. Only hashes are stored."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etl.access.roles import Role

# How long a link may be used, and a session lasts.
LINK_LASTS = timedelta(minutes=10)
SESSION_LASTS = timedelta(days=7)


@dataclass(frozen=True)
class Holder:
    """Who a session acts for. `mark` tells callers apart; `key_id` is that of a stored key, with which it ends."""

    name: str
    role: Role
    mark: str
    key_id: int | None = None


def make_token() -> str:
    """What a link or a cookie holds, which nobody can guess."""
    return secrets.token_urlsafe(32)
