"""Somebody has to be told: worker, beat and PostgreSQL die at each point between seeing a failure and having sent it.

A point is held open from outside, by a lock on what comes next or by a sink that does not answer yet, so that who dies
there is the one that was at it.
"""

from __future__ import annotations

import json
import threading
from contextlib import closing, contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

import psycopg2

from bench.faults.oracle import Verdict
from db.queries.incidents import ALERTS_LOCK
from etl.alerts.signature import new_secret
from testkit.fake_server import Response
from testkit.service import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.faults.arena import Arena
    from testkit.fake_server import Request

POINTS = ("seen", "judging", "judged", "sending", "answered")
VICTIMS = ("worker", "beat", "PostgreSQL")
SOURCE = "alerting"
# Nothing of the incidents before may be taken for flapping.
_ANEW = """
    DELETE FROM alert_members; DELETE FROM alert_incidents; DELETE FROM alert_outbox; DELETE FROM alert_sightings"""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'kasparro-%'"
_EXPIRE = "UPDATE alert_deliveries SET due_at = clock_timestamp(), taken_until = NULL WHERE state = 'pending'"
_LEFT = "SELECT count(*) FROM alert_deliveries WHERE state = 'pending'"


def alerts(arena: Arena, count: int) -> Verdict:
    """At most so many deaths; each time one alert arrives, and one end, at most twice and then with the same id."""
    strikes = list(product(POINTS, VICTIMS))
    arena.dice.shuffle(strikes)
    desk = _Desk(arena)
    verdict = Verdict(records=min(count, len(strikes)))
    for point, victim in strikes[:count]:
        desk.strike(point, victim)
        arena.report.count(f"death of {victim}")
        verdict.complaints += [f"{victim}, {point}: {complaint}" for complaint in desk.judge()]
    return verdict


class _Desk:
    """The service with one source that can be broken, and a sink."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.service = arena.service
        self.taken: list[dict[str, Any]] = []
        self.answers = threading.Event()
        self.arrived = threading.Event()
        self.is_refusing = False
        # What holds a point open: the judging, and what comes after it.
        self.judging: Any = None
        self.other: Any = None
        hook = arena.sink("/hook", self._take)
        self.service.environment |= {
            "ALERT_URLS": hook,
            "ALERT_SECRET": new_secret(),
            "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
        }
        done = self.service.declare(f"sources: [{{name: {SOURCE}, type: csv, file: shop.csv}}]")
        if done.returncode:
            raise RuntimeError(done.stderr)
        self.service.start_web()

    def _take(self, request: Request) -> Response:
        if self.is_refusing:
            self.arrived.set()
            return Response(status=503)
        self.taken.append(json.loads(request.body))
        self.arrived.set()
        self.answers.wait(30)
        return Response(status=204)

    def strike(self, point: str, victim: str) -> None:
        """Let a run fail, let `victim` die at the point, let all go on, and let a run go well."""
        self.taken, self.is_refusing = [], point == "judged"
        self.service.sql(_ANEW)
        self.arrived.clear()
        (self.answers.clear if point in {"sending", "answered"} else self.answers.set)()
        (self.service.folder / "shop.csv").unlink(missing_ok=True)
        with self._connected() as judging, self._connected() as other:
            judging.execute(f"SELECT pg_advisory_lock({ALERTS_LOCK})")
            self._run("failed")
            self._have(victim)
            self.judging, self.other = judging, other
            getattr(self, f"_at_{point}")()
            self._die(victim)
        self.is_refusing = False
        self.answers.set()
        self._await_sent()
        self.service.write_csv(3)
        self._have("worker")
        self._run("success")
        self._await_sent()

    def _at_seen(self) -> None:
        """A run has ended, and nobody has judged it."""

    def _at_judging(self) -> None:
        """What was seen is taken, and nothing is written."""
        self.other.execute("BEGIN")
        self.other.execute("LOCK TABLE alert_incidents IN ACCESS EXCLUSIVE MODE")
        self.judging.execute("SELECT pg_advisory_unlock_all()")
        self._await_waiting()

    def _at_judged(self) -> None:
        """A message is there, and was not taken."""
        self.judging.execute("SELECT pg_advisory_unlock_all()")
        self.arrived.wait(30)

    def _at_sending(self) -> None:
        """The sink has it, and does not answer."""
        self.judging.execute("SELECT pg_advisory_unlock_all()")
        self.arrived.wait(30)

    def _at_answered(self) -> None:
        """The sink has answered, and that is not noted."""
        self._at_sending()
        self.other.execute("BEGIN")
        self.other.execute("SELECT 1 FROM alert_deliveries FOR UPDATE")
        self.answers.set()
        self._await_waiting()

    def _await_waiting(self) -> None:
        wait_until(lambda: bool(self.service.sql(_WAITING)[0]), 30)

    def _have(self, victim: str) -> None:
        """Of worker and beat only the one that is to die, so that it is the one that is at it."""
        wanted = "beat" if victim == "beat" else "worker"
        for name in {"worker", "beat"} - {wanted}:
            if self.service.has(name):
                self.service.kill(name)
        if not self.service.has(wanted):
            self._start(wanted)

    def _start(self, name: str) -> None:
        if name == "worker":
            self.service.start_worker()
        else:
            self.service.start("beat", "celery", "-A", "worker", "beat", "--pidfile=")

    def _die(self, victim: str) -> None:
        if victim == "PostgreSQL":
            self.arena.servers.crash("postgres", 9)
            self.arena.servers.start("postgres")
            return
        self.service.kill(victim)
        self._start(victim)

    def _run(self, status: str) -> None:
        self._have("worker")
        since = self.service.sql("SELECT clock_timestamp()::text")[0]
        wait_until(lambda: self.service.post("/runs", {"source": SOURCE}).status_code in {202, 409}, 60)
        ended = f"SELECT count(*) FROM etl_runs WHERE status = '{status}' AND completed_at > '{since}'"
        wait_until(lambda: self.service.sql(ended)[0] > 0, 60)

    def _await_sent(self) -> None:
        """All that is to be told is, and nothing is left to be judged."""

        def is_sent() -> bool:
            # Who died has not given back what it had taken.
            self.service.sql(_EXPIRE)
            seen = self.service.sql("SELECT count(*) FROM alert_sightings")[0]
            told = self.service.sql("SELECT count(*) FROM alert_outbox")[0]
            return bool(told) and not seen and not self.service.sql(_LEFT)[0]

        wait_until(is_sent, 60, every=1)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        connection = psycopg2.connect(self.service.database_url)
        connection.autocommit = True
        with closing(connection):
            yield connection.cursor()

    def judge(self) -> list[str]:
        """What is wrong with what has arrived."""
        wrong = []
        for event in ("firing", "recovered"):
            ids = [one["data"]["id"] for one in self.taken if one["data"]["event"] == event]
            if not 1 <= len(ids) <= 2 or len(set(ids)) != 1:
                wrong.append(f"{len(ids)} messages with {len(set(ids))} ids say {event}")
        if len(self.taken) > 3:
            wrong.append(f"{len(self.taken)} messages arrived")
        return wrong
