"""Commands for people who look after sources.

python -m worker debug NAME     run a source in this process
python -m worker preview NAME   read a source a little, and show what would become of it
python -m worker import FILE    make sources of an OPML file, or of a list of addresses, and print them
python -m worker resume NAME    let a source run that was set aside
python -m worker why NAME       say why a source is late or not well
python -m worker test FILES     test sources by given answers, without a network
python -m worker alerts test    send a test to every address that alerts go to (alerts secret: a new ALERT_SECRET)
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from broker.host_states import RedisHostStates, host_of_source
from config import logs, settings
from db.command import exit_code
from db.queries.outbox import Taken
from db.queries.share import forget_deaths
from db.queries.sources import find_sources, get_declared
from db.queries.why import situation
from db.session import Database
from etl import secrets
from etl.alerts.message import trial_alert
from etl.alerts.signature import new_secret
from etl.declare.catalog import load_catalog
from etl.declare.source import dump
from etl.errors import ConfigError, ETLError, NoDestinationError
from etl.hosts.limiter import LocalHostStates
from etl.runs.outcome import Status
from etl.runs.why import explain
from worker import importing, preview_table, previewing, process, source_tests
from worker.courier import send
from worker.inline import InlineRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Row

    from config.settings import Settings
    from etl.alerts.destination import Destination
    from etl.alerts.message import Alert


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


def why(name: str) -> None:
    """Say why a source is late or not well, the cause first.

    Raises:
        UnknownSourceError: there is none of this name.
    """
    mine = settings.load_connected()
    database = Database(mine.database_url, name="kasparro-why", pool_size=1)
    try:
        about = database.read(situation, name, is_scheduling=mine.enable_scheduler)
    finally:
        database.close()
    reasons = explain(replace(about, host=host_of_source(RedisHostStates(), about.url, mine.environment)))
    for reason in reasons:
        times = [f"{word} {time:%FT%TZ}" for word, time in (("since", reason.since), ("until", reason.until)) if time]
        print(f"{reason.code}: {reason.message}" + (f" ({', '.join(times)})" if times else ""))
        print(f"  {reason.action}")
    if not reasons:
        print(f"{name} is on time and well")


def preview(name: str) -> None:
    """Read a source a little, and show what would become of it.

    Raises:
        ETLError: it cannot be read, or the reading ended early.
    """
    mine = settings.load()
    logs.configure(mine)
    wanted = previewing.Wanted(_document(mine, name))
    previewing.limit_process(mine.worker_memory, wanted.seconds)
    told = previewing.preview(mine, wanted)
    for line in preview_table.lines(msgspec.json.decode(secrets.hide(msgspec.json.encode(told).decode()))):
        print(line)
    if told["error"]:
        raise ETLError("it was not read to the end; see above")


def import_(file: str) -> None:
    """Print the sources that a list of addresses makes, as YAML; nothing is applied.

    Raises:
        ConfigError: the list cannot be read.
    """
    for lines in importing.import_list(Path(file)):
        print(lines, flush=True)


def alerts(what: str) -> None:
    """Send a test to every address that alerts go to, from this process, and say what became of each.

    Or print a new secret to sign webhooks with.

    Raises:
        ETLError: there is no address, one was not reached, or something else is asked for.
    """
    if what == "secret":
        print(new_secret())
        return
    mine = settings.load()
    if what != "test":
        raise ConfigError(f"alerts {what}: there are `alerts test` and `alerts secret`")
    if not mine.alert_urls:
        raise NoDestinationError("ALERT_URLS names no address")
    now = datetime.now(UTC)
    alert = trial_alert(uuid4(), now)
    failed = [one for one in mine.alert_urls if not _is_reached(mine, one, alert, now)]
    if failed:
        raise ETLError(f"{len(failed)} of {len(mine.alert_urls)} addresses were not reached")


def _is_reached(mine: Settings, destination: Destination, alert: Alert, now: datetime) -> bool:
    taken = Taken(alert.alert_id, alert.event, alert.title, alert.body, alert.facts, now, 1)
    try:
        send(mine, destination, [taken])
    except ETLError as error:
        print(f"{destination.name}: {error.message}")
        return False
    print(f"{destination.name}: sent")
    return True


def _document(mine: Settings, name: str) -> dict[str, Any]:
    """The source of this name: as the file has it, or else as it is saved."""
    for one in load_catalog(mine.sources_file, "30m", lambda secret: mine.secret(secret) or secret):
        if one.source.name == name:
            return dump(one.source)
    if not mine.database_url:
        raise ConfigError(f"there is no source named {name!r} in {mine.sources_file.name}")
    database = Database(mine.database_url, name="kasparro-preview", pool_size=1, patience=0)
    try:
        return database.read(get_declared, name)
    finally:
        database.close()


def test(*files: str) -> None:
    """Test sources.

    Raises:
        ETLError: one is not as it should be.
    """
    if not source_tests.run(settings.load(), files):
        raise ETLError("not all sources are as they should be")


COMMANDS: dict[str, Callable[..., None]] = {
    "debug": debug,
    "preview": preview,
    "import": import_,
    "resume": resume,
    "why": why,
    "test": test,
    "alerts": alerts,
}
# Those that take several arguments.
_MANY = frozenset({"test"})


def main(arguments: list[str]) -> int:
    """Run one command; 0 on success."""
    command, *rest = arguments or [""]
    if command not in COMMANDS or not rest or (len(rest) > 1 and command not in _MANY):
        print(__doc__, file=sys.stderr)
        return 2
    return exit_code(lambda: COMMANDS[command](*rest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
