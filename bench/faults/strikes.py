"""Crashes at every point: of PostgreSQL while a process stands there, and of the process itself.

A counting pass finds what each stage does; then each point of it is aimed at, and the books are judged before the next.
"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.faults.crashes import BEAT, PATIENCE, WORKER, Crash, Crashes
from bench.faults.oracle import Verdict, judge, judge_again
from bench.faults.points import DATABASE_KINDS, PROCESS_KINDS, Point, counts, is_seen, one_execution, plan
from testkit.service import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from bench.faults.arena import Arena
    from bench.faults.points import Event

# PostgreSQL ends by its own immediate shutdown, or by SIGKILL of its first process.
DATABASE = (Crash("immediate shutdown of PostgreSQL", signal.SIGQUIT), Crash("SIGKILL of PostgreSQL", signal.SIGKILL))
PROCESS = (Crash("SIGKILL of the worker", None),)
# How often a point is tried that another process may have been spared by being quicker.
TRIES = 3
# After so many points with wrong books the rest is left.
ENOUGH = 3

# One run that a dead worker holds, and one whose message was lost.
_DROPPED = """
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, attempt, worker, claimed_at,
                          started_at, lease_expires_at, checkpoint_before)
    SELECT gen_random_uuid(), name, type, 'api', CASE WHEN dead THEN 'running' ELSE 'queued' END,
        CASE WHEN dead THEN 'extracting' ELSE 'queued' END, dead::integer, CASE WHEN dead THEN 'gone' END,
        CASE WHEN dead THEN clock_timestamp() END, CASE WHEN dead THEN clock_timestamp() END,
        CASE WHEN dead THEN clock_timestamp() - interval '1 second' END,
        (SELECT value FROM etl_checkpoints c WHERE c.source_name = s.name)
    FROM (SELECT *, name = 's0' AS dead FROM sources) s"""
# Whole batches look as if they had killed each of their workers.
_EXHAUSTED = """
    CREATE OR REPLACE FUNCTION exhausted() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.part = '' THEN NEW.attempt := 3; END IF; RETURN NEW; END $$;
    CREATE OR REPLACE TRIGGER exhausted BEFORE INSERT ON etl_batches FOR EACH ROW EXECUTE FUNCTION exhausted()"""


@dataclass(frozen=True)
class Arrangement:
    """How stages are brought about. `begin` starts what runs them, and may say what to wait for."""

    name: str
    stages: tuple[str, ...]
    begin: Callable[[Crashes], Future[None] | None]
    # SQL before it all, and before each point.
    once: str = ""
    each: str = ""
    undo: str = ""
    processes: Callable[[Crashes], None] = lambda _: None
    # Whether the books are right only after another run.
    again: bool = False
    # Whether every record is another one each time.
    turns: bool = True
    # What is wrong before that other run.
    halfway: Callable[[Crashes], list[str]] = lambda _: []
    # What is wrong afterwards beside the books, and what has to stay the same.
    check: Callable[[Crashes], list[str]] = lambda _: []
    same: Callable[[Crashes], object] = lambda _: None


def _begin_cancel(crashes: Crashes) -> Future[None]:
    """Cancel a run that has stored something and goes on."""
    crashes.arena.truth.delay = 0.05
    crashes.ask().result(PATIENCE)
    busy = "SELECT run_id::text FROM etl_runs WHERE status = 'running' AND extracted_at IS NULL AND batches > 0"
    wait_until(lambda: bool(crashes.sql(busy)), every=0.01)
    crashes.arena.truth.delay = 0
    return crashes.cancel(
        crashes.sql("SELECT run_id::text FROM etl_runs WHERE completed_at IS NULL ORDER BY batches DESC")[0]
    )


def _begin_slot(crashes: Crashes) -> None:
    crashes.sql("UPDATE sources SET next_run_at = clock_timestamp()")
    crashes.aims.wake()


def _begin_sweep(crashes: Crashes) -> None:
    crashes.sql(_DROPPED)
    crashes.aims.wake()


def _begin_start(crashes: Crashes) -> None:
    """A worker comes up where another has died."""
    crashes.arena.service.kill(WORKER)
    crashes.sql(_DROPPED)
    crashes.start_worker()


def _start_beat(crashes: Crashes) -> None:
    crashes.arena.service.start(BEAT, "bench.faults.launcher", "celery", "-A", "worker", "beat", "--pidfile=")


LOADING = Arrangement("loading", ("fetch", "staging", "normalize", "load", "closing"), Crashes.ask)
ANEW = Arrangement("loading anew", ("load",), Crashes.ask, each="DELETE FROM unified_items")
HALVING = Arrangement(
    "halving",
    ("normalize",),
    Crashes.ask,
    once=_EXHAUSTED,
    undo="DROP TRIGGER exhausted ON etl_batches",
)
ASKING = Arrangement("asking", ("asking",), Crashes.ask)
CANCEL = Arrangement("cancel", ("cancel",), _begin_cancel, again=True)
SCHEDULE = Arrangement("schedule", ("schedule",), _begin_slot, processes=_start_beat)
SWEEPING = Arrangement("sweeping", ("sweeping",), _begin_sweep)
# The steps that are done once in ten minutes come with the first pass of a sweeper.
STARTING = Arrangement("starting", ("sweeping",), _begin_start)


def database_crashes(arena: Arena, one_of: int) -> Verdict:
    """PostgreSQL crashes at each point, by each kind of crash; at one of `one_of` points, and at 0 in full."""
    arrangements = (LOADING, ANEW, HALVING, ASKING, CANCEL, SCHEDULE, SWEEPING, STARTING)
    return strike_all(Plan(arrangements, DATABASE_KINDS, DATABASE, one_of), arena)


def crash_points(arena: Arena, one_of: int) -> Verdict:
    """The worker is killed before and after each commit and message, and before it acknowledges."""
    return strike_all(Plan((LOADING, HALVING, SWEEPING), PROCESS_KINDS, PROCESS, one_of), arena)


@dataclass(frozen=True)
class Plan:
    """What is to crash, where, and how."""

    arrangements: tuple[Arrangement, ...]
    kinds: dict[str, tuple[str, ...]]
    crashes: tuple[Crash, ...]
    one_of: int

    def jobs(self, point: Point, number: int) -> list[tuple[Point, Crash]]:
        """Each kind of crash at a point. In short, one in turn where a transaction is open and is lost either way."""
        each = len(self.crashes)
        crashes = self.crashes if self.is_full or point.kind != "statement" else (self.crashes[number % each],)
        return [(point, crash) for crash in crashes]

    @property
    def is_full(self) -> bool:
        return self.one_of == 0


def strike_all(plan_: Plan, arena: Arena) -> Verdict:
    """Strike at the points of a plan, and judge the books after each."""
    crashes = Crashes(arena)
    crashes.leave_disk_alone(leave=True)
    crashes.start()
    strikes = Strikes(crashes, plan_)
    try:
        for arrangement in plan_.arrangements:
            strikes.arrange(arrangement)
        crashes.work()
        judge_again(arena.service, arena.truth, strikes.verdict)
    finally:
        crashes.leave_disk_alone(leave=False)
        crashes.close()
    return strikes.verdict


@dataclass
class Strikes:
    """The points one after the other, and what is wrong after each."""

    crashes: Crashes
    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    wrong: int = 0
    since: str = ""

    @property
    def arena(self) -> Arena:
        return self.crashes.arena

    def arrange(self, arrangement: Arrangement) -> None:
        """Count what the stages do, then strike at the points of it."""
        self._prepare(arrangement)
        traced = self._count(arrangement)
        for stage in arrangement.stages:
            events = one_execution(traced, stage)
            name = stage if len(arrangement.stages) > 1 else arrangement.name
            points = plan(name, events, self.plan.kinds)
            struck = self._strike_points(arrangement, points)
            self._note(name, events, len(points), struck)
        self._undo(arrangement)

    def _prepare(self, arrangement: Arrangement) -> None:
        if arrangement.once:
            self.crashes.sql(arrangement.once)
        arrangement.processes(self.crashes)

    def _undo(self, arrangement: Arrangement) -> None:
        if arrangement.undo:
            self.crashes.sql(arrangement.undo)
        if self.arena.service.has(BEAT):
            self.arena.service.kill(BEAT)

    def _count(self, arrangement: Arrangement) -> list[Event]:
        with self.crashes.aims.tracing() as events:
            self._once(arrangement, lambda: None)
        return events

    def _strike_points(self, arrangement: Arrangement, points: list[Point]) -> int:
        jobs = [job for number, point in enumerate(points) for job in self.plan.jobs(point, number)]
        chosen = sorted(self.arena.dice.sample(range(len(jobs)), math.ceil(len(jobs) / max(self.plan.one_of, 1))))
        for done, number in enumerate(chosen):
            if self.wrong >= ENOUGH:
                return done
            self._strike(arrangement, *jobs[number])
        return len(chosen)

    def _strike(self, arrangement: Arrangement, point: Point, crash: Crash) -> None:
        what = f"{arrangement.name}: {crash.name} {point}"
        before = arrangement.same(self.crashes)
        if not any(self._strike_once(arrangement, point, crash) for _ in range(TRIES)):
            self.verdict.complaints.append(f"{what}: no process came there")
        verdict = judge(self.arena.service, self.arena.truth)
        verdict.complaints += arrangement.check(self.crashes)
        if arrangement.same(self.crashes) != before:
            verdict.complaints.append("what was to stay the same has changed")
        self.verdict.add(verdict, what)
        if not verdict.clean:
            self._begin_anew(arrangement)

    def _strike_once(self, arrangement: Arrangement, point: Point, crash: Crash) -> bool:
        reached = [False]
        self.crashes.aims.take(point, kills=crash.number is None)

        def strike() -> None:
            reached[0] = self.crashes.aims.await_reached(self._is_over, PATIENCE)
            if reached[0]:
                self.arena.report.count(crash.name)
                self.crashes.crash(crash)

        self._once(arrangement, strike)
        self.crashes.aims.drop()
        return reached[0]

    def _is_over(self) -> bool:
        return self.crashes.is_done(self.since)

    def _once(self, arrangement: Arrangement, strike: Callable[[], None]) -> None:
        """Bring the stages about in a new version of every record, strike, and wait for all to end."""
        if arrangement.each:
            self.crashes.sql(arrangement.each)
        self.crashes.warm_up()
        self.arena.truth.round += arrangement.turns
        self.since = self.crashes.now()
        answer = arrangement.begin(self.crashes)
        strike()
        struck = time.monotonic()
        if answer is not None:
            answer.result(2 * PATIENCE)
        self.crashes.await_done(self.since)
        self.arena.report.recovery.append(time.monotonic() - struck)
        if arrangement.again:
            self.verdict.complaints += arrangement.halfway(self.crashes)
            self.crashes.work()

    def _begin_anew(self, arrangement: Arrangement) -> None:
        self.wrong += 1
        if self.wrong == ENOUGH:
            self.verdict.complaints.append(f"after {ENOUGH} points with wrong books the rest was left")
        self.arena.renew()
        self.crashes.start()
        self._prepare(arrangement)

    def _note(self, name: str, events: list[Event], points: int, struck: int) -> None:
        done = ", ".join(f"{count} {kind}" for kind, count in counts(events).items() if count)
        self.arena.report.tell(f"{name}: {done}: {points} points, {struck} crashes")
        if not points or not is_seen(name, events):
            self.verdict.complaints.append(f"{name} was not seen")
