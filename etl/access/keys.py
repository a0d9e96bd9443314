"""API keys: `kas_<prefix>_<secret>`. The prefix names a key and may be shown; of the whole only a hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from etl.access.roles import Role

HASH_MARK = "sha256:"
_LETTERS = string.ascii_lowercase + string.digits
_FORM = re.compile(r"(kas_[a-z0-9]{10})_[A-Za-z0-9_-]{43}")
# What the hash of a key that is not known is compared with, so that it takes as long.
_NO_HASH = HASH_MARK + "0" * 64


@dataclass(frozen=True)
class NewKey:
    """A key that was just made: `text` is shown once, and kept by its holder alone."""

    prefix: str
    text: str = field(repr=False)

    @property
    def hash(self) -> str:
        """What is stored of it."""
        return hash_key(self.text)


@dataclass(frozen=True)
class StoredKey:
    """A key as it is stored."""

    key_id: int
    prefix: str
    hash: str = field(repr=False)
    name: str
    role: Role
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None

    def is_good(self, now: datetime) -> bool:
        """Whether it counts: neither revoked nor past its time."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


def make_key() -> NewKey:
    """A key that nobody can guess."""
    prefix = "kas_" + "".join(secrets.choice(_LETTERS) for _ in range(10))
    return NewKey(prefix, f"{prefix}_{secrets.token_urlsafe(32)}")


def prefix_of(key: str) -> str | None:
    """The prefix of what may be a key of ours; None of what is none."""
    found = _FORM.fullmatch(key)
    return found[1] if found else None


def hash_key(key: str) -> str:
    """The form in which a key may be stored."""
    return HASH_MARK + hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def stored_form(keys: Iterable[str]) -> tuple[str, ...]:
    """Keys as they were given, each plain or hashed, as hashes."""
    return tuple(key if key.startswith(HASH_MARK) else hash_key(key) for key in keys)


def is_known(key: str, hashes: tuple[str, ...]) -> bool:
    """Whether a plain key is one of those. All are compared, so that the time it takes says nothing."""
    hashed = hash_key(key)
    return any([hmac.compare_digest(hashed, known) for known in hashes])  # noqa: C419 -- a list: any() alone stops early


def matches(key: str, stored: StoredKey | None) -> bool:
    """Whether a plain key is the stored one; no sooner answered where there is none."""
    return hmac.compare_digest(hash_key(key), stored.hash if stored else _NO_HASH)
