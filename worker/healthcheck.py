"""`python -m worker.healthcheck worker|beat`: exit code 0 if this host's process was seen alive lately.

It asks PostgreSQL, not the broker: a worker that waits for Redis to come back is well.
"""

from __future__ import annotations

import socket
import sys

from config import settings
from db.queries.processes import is_alive
from db.session import Database
from etl.errors import StorageUnavailableError


def main(kind: str) -> int:
    """0 if alive, 1 if not."""
    database = Database(settings.load_connected().database_url, name="kasparro-healthcheck", pool_size=1)
    try:
        with database.transaction() as connection:
            return 0 if is_alive(connection, f"{kind}@{socket.gethostname()}:") else 1
    except StorageUnavailableError as error:
        print(error.message, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "worker"))
