"""What is to be told: steps of the sweeper that judge what was seen, and write messages into the outbox."""

from __future__ import annotations

import shutil
import socket
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from broker.host_states import RedisHostStates
from broker.messaging import BROKER_ERRORS, make_producer
from db.queries.incidents import lock_ledger, read_ledger, write_ledger
from db.queries.outbox import add_alert, give_up_unknown
from db.queries.processes import hosts_alive
from db.queries.sightings import take_sightings
from db.queries.standing import KINDS, database_time, find_standing, part, unread_sources
from etl.alerts.cause import Cause, Kind, Member
from etl.alerts.destination import chosen
from etl.alerts.message import compose
from etl.hosts.breaker import State
from worker.rhythm import Rhythm

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from config.settings import Settings
    from db.session import Database
    from etl.alerts.ledger import Ledger, Notice
    from etl.hosts.limiter import HostState

LOOK_SECONDS = 15.0
# A disk is nearly full with less of it free than this share, until more than the other is.
LEAST_FREE, ENOUGH_FREE = 0.10, 0.15
# How the disk of temporary files is called while there is no place for them on any.
SCRATCH = "temporary files"
NO_BROKER_FOR = timedelta(seconds=60)
# No source can be called so.
BREAKER = ":breaker"

log = structlog.get_logger(__name__)


class Alerting:
    """Judges the ends of runs in each pass, and all that stands now and then."""

    def __init__(self, settings: Settings, free: Callable[[Path], float] | None = None) -> None:
        """`free` tells which share of the disk of a folder is free."""
        self._settings = settings
        self._hosts = RedisHostStates(make_producer())
        self._rhythm = Rhythm()
        self._free = free or free_share

    @property
    def steps(self) -> tuple[Callable[[Database], None], ...]:
        """All of them, in their order."""
        return (self.judge_runs, self.look_around, self.give_up)

    def judge_runs(self, database: Database) -> None:
        """Judge how runs ended."""
        _log(database.transact(self._judge_runs))

    def look_around(self, database: Database) -> None:
        """Judge what stands: of sources, of hosts, of the service, and of this machine."""
        if not self._rhythm.is_due("look", LOOK_SECONDS):
            return
        # What is outside of the database first: no transaction waits for it.
        states, disks = self._ask_broker(), disk_shares((self._settings.state_dir, _scratch()), self._free)
        _log(database.transact(self._look_around, states, disks))

    def give_up(self, database: Database) -> None:
        """Give up messages to addresses that are not set any more."""
        if self._rhythm.is_due("give_up", 600.0):
            database.transact(give_up_unknown, [one.name for one in self._settings.alert_urls])

    def _judge_runs(self, connection: Connection) -> list[str]:
        if not lock_ledger(connection):
            return []
        sightings = take_sightings(connection, self._settings.environment)
        if not sightings:
            return []
        ledger = read_ledger(connection, self._settings.alert_reminder)
        before = ledger.members, dict(ledger.incidents)
        notices = ledger.see_all(sightings)
        write_ledger(connection, ledger, *before)
        return self._tell(connection, notices, database_time(connection))

    def _look_around(
        self, connection: Connection, states: dict[str, tuple[HostState, float]] | None, disks: dict[str, float]
    ) -> list[str]:
        if not lock_ledger(connection):
            return []
        now = database_time(connection)
        ledger = read_ledger(connection, self._settings.alert_reminder)
        before = ledger.members, dict(ledger.incidents)
        ledger.leave_out(unread_sources(connection))
        ledger.hold(KINDS, find_standing(connection, now, is_scheduling=self._settings.enable_scheduler))
        _hold_disks(ledger, disks, now, hosts_alive(connection))
        ledger.hold({Kind.BROKER}, [_no_broker(now)] if states is None else [])
        if states is not None:
            ledger.hold({Kind.HOST}, _open_breakers(states, now))
        notices = ledger.judge(now)
        write_ledger(connection, ledger, *before)
        return self._tell(connection, notices, now)

    def _tell(self, connection: Connection, notices: Sequence[Notice], now: datetime) -> list[str]:
        told = []
        for alert in compose(notices, now, uuid4):
            destinations = chosen(self._settings.alert_urls, alert.audiences, alert.told)
            # Of what was told already, nobody may be left who has not heard of it.
            if destinations or alert.told is None:
                add_alert(connection, alert, destinations)
                told.append(alert.title)
        return told

    def _ask_broker(self) -> dict[str, tuple[HostState, float]] | None:
        try:
            return self._hosts.all()
        except BROKER_ERRORS as error:
            log.warning("broker_unreachable", error=str(error)[:200])
            return None


def disk_shares(folders: Sequence[Path | None], free: Callable[[Path], float]) -> dict[str, float]:
    """Which share of the disks of these folders is free, each disk once; one that cannot be used has none."""
    shares, seen = dict[str, float](), set[int]()
    for folder in folders:
        if folder is None:
            shares[SCRATCH] = 0.0
            continue
        try:
            device = _standing(folder).stat().st_dev
            if device not in seen:
                shares[str(folder)] = free(folder)
            seen.add(device)
        except OSError as error:
            log.warning("disk_not_seen", folder=str(folder), reason=str(error))
    return shares


def _hold_disks(ledger: Ledger, shares: dict[str, float], now: datetime, alive: Collection[str]) -> None:
    """What is known of the disks of this machine, and no more of those of machines that are gone."""
    mine = socket.gethostname()
    for cause, _ in ledger.members:
        if cause.kind is Kind.DISK and cause.subject.partition(" ")[0] not in {mine, *alive}:
            ledger.hold({Kind.DISK}, [], cause.subject)
    if SCRATCH not in shares:
        ledger.hold({Kind.DISK}, [], f"{mine} {SCRATCH}")
    for folder, share in shares.items():
        subject = f"{mine} {folder}"
        is_known = any(cause.subject == subject for cause, _ in ledger.members if cause.kind is Kind.DISK)
        message = f"{share:.0%} of the disk of {folder} on {mine} is free"
        is_full = share < (ENOUGH_FREE if is_known else LEAST_FREE)
        ledger.hold({Kind.DISK}, [part(Kind.DISK, now, now, message, subject)] if is_full else [], subject)


def _scratch() -> Path | None:
    """Where temporary files go; None where there is no place for them."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def _standing(folder: Path) -> Path:
    """The folder, or that above it which there is."""
    while not folder.exists():
        folder = folder.parent
    return folder


def free_share(folder: Path) -> float:
    """Which share of the disk is free that a folder is on, or would be."""
    usage = shutil.disk_usage(_standing(folder))
    return usage.free / usage.total if usage.total else 1.0


def _no_broker(now: datetime) -> Member:
    return part(Kind.BROKER, now, now + NO_BROKER_FOR, "Redis has not answered for a minute; runs start when it does")


def _open_breakers(states: dict[str, tuple[HostState, float]], now: datetime) -> list[Member]:
    """Hosts that are not asked for now, since they failed too often."""
    return [
        Member(Cause(Kind.HOST, host), BREAKER, now, now, f"{host} is not asked for now: {state.circuit.reason}")
        for host, (state, at) in states.items()
        if state.circuit.state(at) is not State.CLOSED
    ]


def _log(titles: Sequence[str]) -> None:
    for title in titles:
        log.warning("alert", title=title)
