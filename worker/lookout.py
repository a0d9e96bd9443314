"""The lookout: a thread that speaks up when the outbox cannot be used, and says now and then that all is well.

A database that takes no writes takes no message either: that is told from memory, once. Whoever is called at
`HEARTBEAT_URL` notices that the calls end: a machine that is dead cannot say so.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import structlog

from broker.messaging import broker_answers, make_producer
from broker.telling import claim_telling, forget_telling, left_telling, note_reached
from db.queries.heartbeat import claim_heartbeat
from db.queries.outbox import Taken, add_alert, address_alert
from etl.alerts.incident import Event
from etl.alerts.message import Alert, outage_alert
from etl.alerts.webhook import call
from etl.errors import ETLError, StorageError
from worker.courier import send
from worker.rhythm import Rhythm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from broker.telling import Telling
    from config.settings import Settings
    from db.session import Database
    from etl.alerts.destination import Destination
    from worker.outage import Outage

PAUSE = 5.0
HEARTBEAT_SECONDS = 60.0
# What is told of in Redis.
DATABASE = "database"

log = structlog.get_logger(__name__)


class Lookout(threading.Thread):
    """Looks every five seconds until stopped."""

    def __init__(self, settings: Settings, database: Database, outage: Outage) -> None:
        """`outage` is what the sweeper has run into."""
        super().__init__(name="lookout", daemon=True)
        self._app = make_producer()
        self._settings = settings
        self._database = database
        self._outage = outage
        self._rhythm = Rhythm()
        self._alert: Alert | None = None
        self._untold: list[Destination] = []
        self._may_be_left = True
        self._name = str(uuid4())
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ask the thread to end after what it is at."""
        self._stopped.set()

    def run(self) -> None:
        """Look until stopped."""
        while not self._stopped.wait(PAUSE):
            for step in (self.tell_outage, self.tell_end, self.say_well):
                try:
                    step()
                except StorageError as error:
                    log.warning("lookout_postponed", step=step.__name__, reason=error.message)
                except Exception:
                    # Whatever is wrong with one step, the others are done.
                    log.exception("lookout_defect", step=step.__name__)

    def tell_outage(self) -> None:
        """Tell of a database that takes no writes; whom it did not reach is told at the next look."""
        message = self._outage.to_tell()
        if message is None:
            return
        self._claim(message)
        for one in list(self._untold):
            # Anew for each: while one takes its time another process may go on.
            if self._claim(message) and one in self._untold and self._told(one):
                self._untold.remove(one)

    def _claim(self, message: str) -> bool:
        """Whether it is for this process to tell of it; where Redis is away too, each does."""
        telling = claim_telling(self._app, DATABASE, str(uuid4()), self._name)
        if self._alert is None:
            self._alert, self._untold = _began(telling, message), list(self._settings.alert_urls)
        if telling:
            self._untold = [one for one in self._untold if one.name not in telling.reached]
        return telling is None or telling.is_mine

    def _told(self, destination: Destination) -> bool:
        alert = self._alert
        if alert is None:
            return True
        taken = Taken(alert.alert_id, alert.event, alert.title, alert.body, alert.facts, datetime.now(UTC), 1)
        try:
            send(self._settings, destination, [taken])
        except ETLError as error:
            log.warning("alert_not_sent", destination=destination.name, alerts=1, reason=error.message)
            return False
        note_reached(self._app, DATABASE, destination.name)
        log.info("alert_sent", destination=destination.name, alerts=1)
        return True

    def tell_end(self) -> None:
        """Put into the outbox what was told from memory, and that it is over."""
        if self._may_be_left:
            self._adopt()
        began = self._alert
        if began is None or not self._outage.is_over:
            return
        over = outage_alert(Event.RECOVERED, uuid5(began.alert_id, "over"), "it takes writes again", datetime.now(UTC))
        self._database.transact(_put_both, began, self._untold, over, self._settings.alert_urls)
        forget_telling(self._app, DATABASE)
        self._outage.forget()
        self._alert, self._untold = None, []

    def _adopt(self) -> None:
        """At first: who told of an outage may have been ended since, and its end is to be told."""
        self._may_be_left, left = left_telling(self._app, DATABASE)
        if left and self._alert is None:
            self._alert = _began(left, "it took no writes")
            self._untold = [one for one in self._settings.alert_urls if one.name not in left.reached]
            self._outage.adopt()

    def say_well(self) -> None:
        """Call the heartbeat's address while all of the service is well: once a minute, by one of all processes."""
        if not self._settings.heartbeat_url or not self._rhythm.is_due("heartbeat", PAUSE):
            return
        if not broker_answers(self._app):
            return
        is_scheduling = self._settings.enable_scheduler
        if not self._database.transact(claim_heartbeat, HEARTBEAT_SECONDS, is_scheduling=is_scheduling):
            return
        try:
            call(self._settings.heartbeat_url, self._settings.allowed_private_hosts)
        except ETLError as error:
            log.warning("heartbeat_not_sent", reason=error.message)


def _began(telling: Telling | None, message: str) -> Alert:
    """All processes have it under one id, whoever tells: that in Redis, or where that is away one of these minutes."""
    now = datetime.now(UTC)
    about = now.replace(minute=now.minute // 10 * 10)
    alert_id = UUID(telling.name) if telling else uuid5(NAMESPACE_URL, f"kasparro:{DATABASE}:{about:%Y-%m-%dT%H:%M}")
    return outage_alert(Event.FIRING, alert_id, message, now)


def _put_both(
    connection: Connection, began: Alert, untold: Sequence[Destination], over: Alert, every: Sequence[Destination]
) -> None:
    add_alert(connection, began, [])
    # Only with its end: whoever has that already knows.
    if add_alert(connection, over, every):
        address_alert(connection, began.alert_id, untold)
