"""Couriers: a thread for each address that alerts go to, in every worker's main process and in beat.

They take from the outbox what is due, send it, and note how it went. None of them keeps a run, or another courier,
from anything: an address that never answers costs its own thread.
"""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog

from config.settings import PROJECT
from db.queries.outbox import LONGEST_WAIT, Taken, note_failed, note_sent, take_alerts
from etl.alerts.incident import Event
from etl.alerts.message import digest
from etl.alerts.notify import Message, notify
from etl.alerts.signature import headers
from etl.alerts.webhook import call, payload
from etl.errors import ETLError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from config.settings import Settings
    from db.session import Database
    from etl.alerts.destination import Destination

PAUSE = 2.0
# So many messages to people are sent as one.
MOST_TOGETHER = 50
FIRST_WAIT = 5.0
LEVELS = {Event.FIRING: "failure", Event.GROWN: "failure", Event.RECOVERED: "success", Event.TEST: "info"}

log = structlog.get_logger(__name__)


class Courier(threading.Thread):
    """Sends to one address until stopped."""

    def __init__(self, settings: Settings, destination: Destination, database: Database) -> None:
        """`database` may be shared with other couriers."""
        super().__init__(name=f"courier-{destination.scheme}", daemon=True)
        self._settings = settings
        self._destination = destination
        self._database = database
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ask the thread to end after what it is at."""
        self._stopped.set()

    def run(self) -> None:
        """Send until stopped."""
        while not self._stopped.is_set():
            try:
                while self.send_due() and not self._stopped.is_set():
                    pass
            except StorageError as error:
                log.warning("alerts_postponed", reason=error.message)
            except Exception:
                # Whatever is wrong with one message, the thread goes on.
                log.exception("courier_defect")
            self._stopped.wait(PAUSE * (0.75 + random.random() / 2))  # noqa: S311 -- spread, not secrecy

    def send_due(self) -> bool:
        """Send what is due: one message to a machine, some together to people; whether there may be more."""
        name = self._destination.name
        to_machine, to_people = (1, timedelta(0)), (MOST_TOGETHER, self._settings.alert_digest)
        taken = self._database.transact(take_alerts, name, *(to_machine if self._destination.is_webhook else to_people))
        if not taken:
            return False
        ids = [one.alert_id for one in taken]
        try:
            send(self._settings, self._destination, taken)
        except ETLError as error:
            log.warning("alert_not_sent", destination=name, alerts=len(ids), reason=error.message)
            alone, wait = _is_refused(error), _pause(taken[0].attempts)
            self._database.transact(note_failed, name, ids, error.message, wait, alone=alone)
            return alone
        self._database.transact(note_sent, name, ids)
        log.info("alert_sent", destination=name, alerts=len(ids))
        return True


def _pause(attempts: int) -> float:
    """Seconds until the next attempt."""
    longest: float = min(FIRST_WAIT * 2.0 ** min(attempts - 1, 20), LONGEST_WAIT)
    return longest * (0.75 + random.random() / 2)  # noqa: S311 -- spread, not secrecy


# These say that the address would take it later.
_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


def _is_refused(error: ETLError) -> bool:
    """Whether the address took offence at this very message: others may be taken."""
    status = error.facts.get("status", HTTPStatus.SERVICE_UNAVAILABLE)
    return 400 <= status < 500 and status not in _LATER


def send(settings: Settings, destination: Destination, taken: Sequence[Taken]) -> None:
    """Send messages to an address; a webhook takes them one by one, with their ids.

    Raises:
        ETLError: it was not taken.
    """
    if destination.is_webhook:
        for one in taken:
            body = payload(one.event, one.created_at, one.facts)
            sent = headers(settings.alert_secret, str(one.alert_id), datetime.now(UTC), body)
            call(destination.url, settings.allowed_private_hosts, body, sent)
        return
    title, text = digest([(one.title, one.body) for one in taken])
    notify(PROJECT, Message(destination.url, title, text, LEVELS.get(Event(taken[0].event), "warning")))
