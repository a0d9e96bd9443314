"""Why a source is not read now, or not well: the cause first, each with since when, until when and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from etl.hosts.breaker import State
from etl.runs.outcome import Stage, Status
from etl.runs.polling import FRESH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from etl.hosts.limiter import HostState

# A run that waits for a process, and a slot that waits for a scheduler, are on time for so long.
PROMPT = timedelta(seconds=10)
# A run that may be sent is sent within a pass of the sweeper.
SENT = timedelta(seconds=3)


class Cause(StrEnum):
    """What keeps a source from being read, or makes its runs fail."""

    DISABLED_OR_PAUSED = "disabled_or_paused"
    GONE = "gone"
    SET_ASIDE = "set_aside"
    NO_SCHEDULE = "no_schedule"
    NO_WORKER = "no_worker"
    SCHEDULER_SILENT = "scheduler_silent"
    BREAKER_OPEN = "breaker_open"
    SERVER_ASKED_TO_WAIT = "server_asked_to_wait"
    OVER_BUDGET = "over_budget"
    SLOW_SHARE = "slow_share"
    WAITING_IN_QUEUE = "waiting_in_queue"
    RUN_ACTIVE = "run_active"
    SLOT_MISSED = "slot_missed"
    LAST_RUN_FAILED = "last_run_failed"


@dataclass(frozen=True)
class Reason:
    """One of the causes, now."""

    code: Cause
    message: str
    action: str
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class ActiveRun:
    """The run that a source has; `before` is how many were sent for before it and wait too."""

    run_id: UUID
    status: Status
    stage: Stage
    created_at: datetime
    is_sent: bool
    is_slow: bool
    not_before: datetime | None
    before: int
    retry: str | None
    retry_at: datetime | None

    @property
    def waits_for_a_process(self) -> bool:
        """Whether nothing but a free process is lacking."""
        return self.stage is Stage.QUEUED

    @property
    def label(self) -> str:
        """How it is spoken of."""
        return f"the run {self.run_id}"


@dataclass(frozen=True)
class EndedRun:
    """The last run that says something of its source."""

    run_id: UUID
    status: Status
    code: str | None
    message: str | None
    completed_at: datetime


@dataclass(frozen=True)
class Skipped:
    """The last slot that was left out."""

    code: str | None
    message: str | None
    slot: datetime
    completed_at: datetime


@dataclass(frozen=True)
class Host:
    """The host of a source, with what is remembered of it, and the time of that in epoch seconds."""

    name: str
    state: HostState
    now: float


@dataclass(frozen=True)
class Situation:
    """All that is known of a source and of those that serve it."""

    name: str
    url: str | None
    now: datetime
    enabled: bool
    paused: bool
    paused_until: datetime | None
    paused_at: datetime | None
    gone_reason: str | None
    set_aside: bool
    deaths: int
    death_cause: str | None
    not_before: datetime | None
    not_before_reason: str | None
    next_run_at: datetime | None
    updated_at: datetime
    late_since: datetime | None
    slots_missed: int
    run: ActiveRun | None
    last: EndedRun | None
    skipped: Skipped | None
    workers: int
    scheduler_seen_at: datetime | None
    is_scheduling: bool
    host: Host | None = None


def explain(about: Situation) -> list[Reason]:
    """The reasons, the cause first; none of a source that is on time and well."""
    if standing := next(_standing(about), None):
        return [standing]
    found = list(_of_run(about, about.run) if about.run else _of_schedule(about))
    if not found and (about.late_since or about.slots_missed):
        found.append(_missed(about))
    return found + list(_failed(about))


def is_on_time(reasons: list[Reason]) -> bool:
    """Whether it is read when it should be, well or not."""
    return all(reason.code is Cause.LAST_RUN_FAILED for reason in reasons)


def _standing(about: Situation) -> Iterator[Reason]:
    """What lasts until somebody or some time ends it, and explains all else."""
    if not about.enabled:
        action = "set `enabled: true` where it is declared"
        yield Reason(Cause.DISABLED_OR_PAUSED, "the source is disabled", action, since=about.updated_at)
    if about.paused:
        action = f"POST /sources/{about.name}/resume"
        yield Reason(Cause.DISABLED_OR_PAUSED, "the source is paused", action, about.paused_at, about.paused_until)
    if about.gone_reason:
        action = "change its address, or delete it; a run by hand that succeeds brings it back"
        yield Reason(Cause.GONE, about.gone_reason, action, since=about.last.completed_at if about.last else None)
    if about.set_aside:
        message = f"{about.deaths} worker processes died of it in a row; the last one because {about.death_cause}"
        action = f"look at what it serves; POST /sources/{about.name}/resume tries it again at once, as an edit does"
        since = about.last.completed_at if about.last else about.updated_at
        yield Reason(Cause.SET_ASIDE, message, action, since, about.not_before)


def _of_run(about: Situation, run: ActiveRun) -> Iterator[Reason]:
    """Why the run that there is does not get on."""
    if not about.workers:
        message = f"no worker was seen in the last 30 s, and {run.label} waits for one"
        yield Reason(Cause.NO_WORKER, message, "start a worker", since=run.created_at)
    elif run.waits_for_a_process and (broken := _of_host(about)) and broken.code is Cause.BREAKER_OPEN:
        yield broken
    elif run.waits_for_a_process and run.is_slow and not run.is_sent and about.now - run.created_at > SENT:
        message = "its host is slow or does not answer, and slow sources have their share of the processes already"
        action = "nothing: its turn comes; more worker processes make the share larger"
        yield Reason(Cause.SLOW_SHARE, message, action, since=run.created_at)
    elif run.waits_for_a_process and about.now - run.created_at > PROMPT:
        message = f"{run.label} waits for a process, with {run.before} before it"
        yield Reason(Cause.WAITING_IN_QUEUE, message, "more worker processes, if this lasts", since=run.created_at)
    elif run.stage is Stage.WAITING:
        yield _of_host(about) or _active(run, f"it tries again, after: {run.retry or 'an error'}")
    elif about.late_since or (about.skipped and about.skipped.slot >= run.created_at):
        yield _active(run, "it goes on, and slots that fall into it are left out")


def _active(run: ActiveRun, what: str) -> Reason:
    action = f"GET /runs/{run.run_id} says how far it is; POST /runs/{run.run_id}/cancel ends it"
    return Reason(
        Cause.RUN_ACTIVE, f"{run.label} is active: {what}", action, since=run.created_at, until=run.not_before
    )


def _of_schedule(about: Situation) -> Iterator[Reason]:
    """Why there is no run."""
    if not about.is_scheduling or about.next_run_at is None:
        action = "set ENABLE_SCHEDULER=true, or start its runs otherwise"
        yield Reason(Cause.NO_SCHEDULE, "the scheduler is turned off", action, since=about.scheduler_seen_at)
    elif about.next_run_at < about.now - PROMPT:
        seen = f"one was seen last at {about.scheduler_seen_at:%FT%TZ}" if about.scheduler_seen_at else "none was seen"
        message = f"its slot is due, and no scheduler has taken it; {seen}"
        yield Reason(Cause.SCHEDULER_SILENT, message, "start beat", since=about.next_run_at)
    elif about.not_before and about.not_before > about.now and about.not_before > about.next_run_at:
        yield _asked(about, about.not_before)
    elif (held := _of_host(about)) and (held.until is None or held.until > about.next_run_at):
        yield held


def _asked(about: Situation, until: datetime) -> Reason:
    if about.not_before_reason == FRESH:
        action = "`honour_cache: false` asks at every slot"
        message = "the server said that its last answer stays fresh until then"
    else:
        action, message = "nothing: it is asked again then", "the server asked not to be asked until then"
    return Reason(Cause.SERVER_ASKED_TO_WAIT, message, action, _since_asked(about), until)


def _of_host(about: Situation) -> Reason | None:
    """Why its host is not asked."""
    host = about.host
    if host is None:
        return None
    circuit, budget = host.state.circuit, host.state.budget
    if circuit.state(host.now) is not State.CLOSED:
        action = f"when it is well again: POST /breakers/{host.name}/reset; else one probe at a time goes out"
        message = f"{host.name} failed {circuit.failures} times in a row: {circuit.reason}"
        return Reason(Cause.BREAKER_OPEN, message, action, _moment(circuit.opened_at), _moment(circuit.open_until))
    if budget.paused_until > host.now:
        action = "nothing: it is asked again then"
        message = f"{host.name} wants no requests for now: {budget.reason}"
        until = _moment(budget.paused_until)
        return Reason(Cause.SERVER_ASKED_TO_WAIT, message, action, _since_asked(about), until)
    if budget.interval and budget.next_at > host.now:
        action = "declare a higher `rate` for the sources of this host, if it allows for it"
        message = f"{host.name} is asked every {budget.interval:g} s at most, by the strictest rate of its sources"
        asked_at = _moment(budget.next_at - budget.interval)
        return Reason(Cause.OVER_BUDGET, message, action, min(asked_at, about.now), _moment(budget.next_at))
    return None


def _since_asked(about: Situation) -> datetime | None:
    """When the server said so, as far as it was this source that asked it."""
    if about.run and about.run.stage is Stage.WAITING:
        return about.run.retry_at or about.run.created_at
    ends = [ended.completed_at for ended in (about.last, about.skipped) if ended]
    return max(ends, default=None)


def _missed(about: Situation) -> Reason:
    missed = f"{about.slots_missed} slots passed while no scheduler ran" if about.slots_missed else "a slot was missed"
    action = "nothing: it runs at its next slot; POST /runs runs it now"
    since = about.late_since or (about.last.completed_at if about.last else about.updated_at)
    return Reason(Cause.SLOT_MISSED, missed, action, since, about.next_run_at)


def _failed(about: Situation) -> Iterator[Reason]:
    last = about.last
    if last is not None and last.status is Status.FAILED:
        action = f"GET /runs/{last.run_id} says more; POST /runs tries it again"
        yield Reason(Cause.LAST_RUN_FAILED, f"{last.code}: {last.message}", action, since=last.completed_at)


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
