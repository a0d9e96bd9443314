"""A preview: a source is read a little, in a process of its own, and what would become of it is told.

It writes nothing. `python -m worker.previewing` takes a request from its standard input, as JSON, and answers on its
standard output; the process does not outlive who waits for it, nor its time.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from broker.host_states import HostStatesWithFallback, RedisHostStates
from config import logs, settings as settings_module
from db.queries.trials import refused, take_place
from db.session import Database
from etl import secrets
from etl.child import die_with_parent
from etl.declare.source import parse
from etl.errors import ETLError, StorageError
from etl.extract import target_for
from etl.extract.context import Context
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter, LocalHostStates
from etl.http.call import Policy
from etl.mapping.mapper import Mapper
from etl.mapping.observe import map_records
from etl.records import Checkpoint
from etl.runs.outcome import Failure
from etl.trial.client import Answered, TrialClient
from etl.trial.collect import Collected, TrialReporter, collect
from etl.trial.report import report, stored
from worker.secret_values import secret_values

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from config.settings import Settings
    from etl.declare.source import AnySource
    from etl.files.opening import Opening
    from etl.http.target import PreparedRequest
    from etl.records import Mapped

SECONDS = 20.0
RECORDS = 20
# What mapping and checking may take beside the reading: seconds.
GRACE = 5
# The largest local copy of what is read: bytes.
MOST_WRITTEN = 64 * 1024 * 1024

log = structlog.get_logger(__name__)


class Wanted(msgspec.Struct):
    """What is asked for: a source's document, how many records, and for how many seconds it may be read."""

    source: dict[str, Any]
    records: int = RECORDS
    seconds: float = SECONDS


@dataclass
class _Met:
    """What is met on the way."""

    answers: list[Answered] = field(default_factory=list)
    opening: Opening | None = None


def preview(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    """Read a source a little: what came in, and what would become of it.

    Raises:
        ConfigError: the source is not valid, or a secret is missing.
    """
    source = parse(wanted.source)
    met, reporter = _Met(), TrialReporter(time.monotonic() + wanted.seconds)
    mapper = Mapper(source, settings.max_record, fails=False)
    scratch = Path(tempfile.mkdtemp(prefix="kasparro-preview-"))
    try:
        context = _context(settings, reporter, met, scratch, wanted.seconds)
        found = _collected(source, _request(settings, source), context, mapper, wanted.records)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    mapped = map_records(mapper, stored(found, context.now))
    turned_down = _check(settings, mapped, reporter)
    return report(source, mapper, found, mapped, reporter, met.answers, met.opening, turned_down)


def _collected(
    source: AnySource, request: PreparedRequest | None, context: Context, mapper: Mapper, limit: int
) -> Collected:
    try:
        return collect(source, request, context, mapper, limit)
    except MemoryError:
        return Collected(failure=Failure("out_of_memory", "its records need more memory than a worker process may use"))


def _request(settings: Settings, source: AnySource) -> PreparedRequest | None:
    request = target_for(source, secret_values(source, settings))
    secrets.know(request.confidential if request else {})
    return request


def _context(settings: Settings, reporter: TrialReporter, met: _Met, scratch: Path, seconds: float) -> Context:
    policy = Policy(0, settings.allowed_private_hosts, time.monotonic() + seconds)
    breaker = BreakerPolicy(settings.breaker_threshold, settings.breaker_reset.total_seconds())

    def connect() -> TrialClient:
        states = HostStatesWithFallback(RedisHostStates()) if settings.redis_url else LocalHostStates()
        limiter = HostLimiter(states, breaker, f"preview:{os.getpid()}", moves_breakers=False)
        client = TrialClient(policy, limiter, reporter)
        client.answers, client.requests = met.answers, reporter.requests
        return client

    def opened(opening: Opening) -> None:
        met.opening = opening

    return Context(
        connect=connect,
        reporter=reporter,
        scratch=scratch / "copy",
        roots=settings.csv_roots,
        base=settings.sources_file.parent,
        checkpoint=Checkpoint(),
        now=datetime.now(UTC),
        opened=opened,
    )


def _check(settings: Settings, mapped: Mapped, reporter: TrialReporter) -> dict[int, str]:
    """What the database would refuse, as far as it can be asked."""
    if not settings.web_database_url:
        reporter.warn("not_checked", "there is no database to be asked what it would refuse")
        return {}
    database = Database(settings.web_database_url, name="kasparro-preview", pool_size=1, patience=0)
    try:
        return database.transact(refused, mapped)
    except StorageError as error:
        reporter.warn("not_checked", f"the database was not asked what it would refuse: {error.message}")
        return {}
    finally:
        database.close()


def limit_process(memory: int, seconds: float) -> None:
    """This process ends with its parent, and by itself when its time is over; it has so many bytes."""
    die_with_parent()
    # The kernel ends it, whatever it computes.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN, MOST_WRITTEN))


def _turned_away(code: str, message: str) -> dict[str, Any]:
    return {"turned_away": {"code": code, "message": message}}


def _in_turn(connection: Connection, settings: Settings, wanted: Wanted) -> dict[str, Any]:
    """A preview, if there is a place for one: it is held as long as the connection is."""
    if not take_place(connection):
        return _turned_away("too_many_previews", "two previews go on; ask again later")
    return preview(settings, wanted)


def answer(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    """A preview, or why there is none."""
    database = Database(settings.web_database_url, name="kasparro-preview-place", pool_size=1, patience=0)
    try:
        return database.read(_in_turn, settings, wanted)
    except StorageError:
        # Nobody counts them while the database is away.
        return preview(settings, wanted)
    finally:
        database.close()


def main(arguments: list[str]) -> int:
    """Answer one request; `--apart` takes no place among those of the API, and needs no database."""
    is_apart = arguments == ["--apart"]
    settings = settings_module.load() if is_apart else settings_module.load_connected()
    logs.configure(settings)
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Wanted)
    limit_process(settings.worker_memory, wanted.seconds)
    try:
        told = preview(settings, wanted) if is_apart else answer(settings, wanted)
    except ETLError as error:
        told = _turned_away(error.code, error.message)
    except MemoryError:
        told = _turned_away("out_of_memory", "its records need more memory than a worker may use")
    except Exception as error:
        # No fault of the source: the log of whoever started this has it.
        log.exception("preview_defect")
        told = _turned_away("internal_error", f"{type(error).__name__} in the preview; the log has the details")
    # Whatever a server has said, in whichever field.
    sys.stdout.write(secrets.hide(msgspec.json.encode(told).decode()))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
