"""What the names of secrets in a source stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.settings import SettingError
from etl.declare.source import secrets_of
from etl.errors import ConfigError

if TYPE_CHECKING:
    from config.settings import Settings
    from etl.declare.source import AnySource


def secret_values(source: AnySource, settings: Settings) -> dict[str, str]:
    """The secrets that a source names, by their names.

    Raises:
        ConfigError: one is not set, or its file cannot be read.
    """
    try:
        values = {name: settings.secret(name) for name in secrets_of(source)}
    except SettingError as error:
        raise ConfigError(str(error), code="missing_secret") from error
    missing = [name for name, value in values.items() if value is None]
    if missing:
        message = f"the secret {missing[0]} is not set in the environment or .env"
        raise ConfigError(message, code="missing_secret")
    return {name: value for name, value in values.items() if value is not None}
