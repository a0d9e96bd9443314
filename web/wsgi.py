"""What gunicorn imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from config import logs as log_config, settings
from db.roles import lacking
from etl.errors import StorageError
from web.app import create_app

if TYPE_CHECKING:
    from web.extensions import Service

log_config.configure(settings.load_connected())
app = create_app(settings.load_connected())


def _look_at_role(parts: Service) -> None:
    """Say once what is missing between the API and the records."""
    log = structlog.get_logger(__name__)
    try:
        found = parts.database.read(lacking)
    except StorageError as error:
        log.warning("role_not_seen", reason=error.message)
        return
    if found:
        log.warning("role_may_too_much", lacking=found)


_look_at_role(app.extensions["kasparro"])
