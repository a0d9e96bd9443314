"""`python -m worker resume NAME`: let a source that was set aside run again."""

from __future__ import annotations

import sys

from config import settings
from db.command import exit_code
from db.queries.share import forget_deaths
from db.queries.sources import find_sources
from db.session import Database


def resume(name: str) -> None:
    """End the time that a source is set aside.

    Raises:
        UnknownSourceError: there is none of this name.
    """
    database = Database(settings.load_connected().database_url, name="kasparro-resume", pool_size=1)
    try:
        database.transact(find_sources, [name])
        resumed = database.transact(forget_deaths, name)
    finally:
        database.close()
    print(f"{name} runs again from its next slot on" if resumed else f"{name} was not set aside")


def main(arguments: list[str]) -> int:
    """Run one command; 0 on success."""
    if len(arguments) != 2 or arguments[0] != "resume":
        print(__doc__, file=sys.stderr)
        return 2
    return exit_code(lambda: resume(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
