"""API keys: the form in which they are stored, and what is needed to be reachable from other machines."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from config.settings import SettingError, is_placeholder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from config.settings import Settings

HASH_MARK = "sha256:"


def check_exposure(settings: Settings) -> None:
    """Refuse to be reachable from other machines without keys, or with one that was never changed.

    Raises:
        SettingError: names what is missing.
    """
    if settings.public and not settings.api_keys:
        raise SettingError(f"API_KEYS: WEB_HOST is {settings.web_host}, not loopback, so at least one key is needed")
    if any(is_placeholder(key) for key in settings.api_keys):
        raise SettingError("API_KEYS: one of the keys is a placeholder")


def hash_key(key: str) -> str:
    """The form in which a key may be stored."""
    return HASH_MARK + hashlib.sha256(key.encode()).hexdigest()


def stored_form(keys: Iterable[str]) -> tuple[str, ...]:
    """Keys as they were given, each plain or hashed, as hashes."""
    return tuple(key if key.startswith(HASH_MARK) else hash_key(key) for key in keys)


def is_known(key: str, hashes: tuple[str, ...]) -> bool:
    """Whether a plain key is one of those. All are compared, so that the time it takes says nothing."""
    hashed = hash_key(key)
    return any([hmac.compare_digest(hashed, known) for known in hashes])  # noqa: C419 -- a list: any() alone stops early
