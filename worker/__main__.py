"""`python -m worker debug NAME`: run a source in this process. `… resume NAME`: let one run that was set aside."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from config import logs, settings
from db.command import exit_code
from db.queries.share import forget_deaths
from db.queries.sources import find_sources
from db.session import Database
from etl.errors import ETLError
from etl.hosts.limiter import LocalHostStates
from etl.runs.outcome import Status
from worker import process
from worker.inline import InlineRunner

if TYPE_CHECKING:
    from sqlalchemy import Row


def debug(name: str) -> None:
    """Run a source in this process and thread, and show how its run ended: breakpoints work, no Redis is needed.

    Raises:
        ETLError: no run could be had, or it failed.
    """
    mine = settings.load_connected()
    logs.configure(mine)
    database = Database(mine.database_url, name="kasparro-debug")
    try:
        run = InlineRunner(process.make(mine, database, LocalHostStates())).run(name)
    finally:
        database.close()
    _show(run)
    if run.status == Status.FAILED:
        raise ETLError(f"{run.error_code}: {run.error_message}")


def _show(run: Row[Any]) -> None:
    counts = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed")
    seconds = (run.completed_at - run.started_at).total_seconds() if run.started_at else 0.0
    print(f"{run.source_name}: {run.status} in {seconds:.1f} s, run {run.run_id}")
    print("  ".join(f"{name} {getattr(run, f'records_{name}')}" for name in counts))
    if run.error_code and run.status != Status.FAILED:
        print(f"{run.error_code}: {run.error_message}")


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


COMMANDS = {"debug": debug, "resume": resume}


def main(arguments: list[str]) -> int:
    """Run one command; 0 on success."""
    if len(arguments) != 2 or arguments[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 2
    return exit_code(lambda: COMMANDS[arguments[0]](arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
