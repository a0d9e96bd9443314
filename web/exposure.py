"""What is needed before the web may be reached from other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.settings import SettingError, is_placeholder

if TYPE_CHECKING:
    from config.settings import Settings


def check_exposure(settings: Settings) -> None:
    """Refuse to be reachable from other machines without keys, or with one that was never changed.

    Raises:
        SettingError: names what is missing.
    """
    if settings.public and not settings.api_keys:
        raise SettingError(f"API_KEYS: WEB_HOST is {settings.web_host}, not loopback, so at least one key is needed")
    if any(is_placeholder(key) for key in settings.api_keys):
        raise SettingError("API_KEYS: one of the keys is a placeholder")
