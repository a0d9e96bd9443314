"""What came of it: lateness, memory, who was set aside, how each source's runs ended; with what was aimed at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from bench.neighbours.sources import Neighbour
    from bench.neighbours.watch import Memory, Probe, Shown
    from testkit.service import Service

# What a worker process may have, and what is let pass above it, between two looks: MiB.
LIMIT, SLACK = 512, 128


@dataclass(frozen=True)
class Figure:
    """One line of the table; `most` and `least` are the aim."""

    name: str
    value: float | None
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether it is within its aim, None without one; what did not happen misses."""
        if self.most is None and self.least is None:
            return None
        if self.value is None:
            return False
        return (self.most is None or self.value < self.most) and (self.least is None or self.value >= self.least)

    def line(self) -> str:
        value = "never" if self.value is None else f"{self.value:,.0f}" if self.unit == "" else f"{self.value:,.1f}"
        aim = f"< {self.most:g}" if self.most is not None else f">= {self.least:g}" if self.least is not None else ""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return f"{self.name:52} {value:>10} {self.unit:4} {aim:>7} {verdict}".rstrip()


@dataclass
class Onlookers:
    """All who looked on, and what the cancel took in seconds."""

    memory: Memory
    probe: Probe
    shown: Shown
    cancelled: float | None = None
    figures: list[Figure] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so large a share of all is not above; None of nothing."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)] if values else None


def lateness(service: Service, began: datetime, processes: int) -> list[Figure]:
    """How late the runs of healthy sources started; one that still waits is as late as it is by now."""
    rows = service.sql(f"""
        SELECT extract(epoch FROM coalesce(started_at, clock_timestamp()) - scheduled_for)::float, started_at IS NULL
        FROM etl_runs WHERE {_HEALTHY} AND scheduled_for >= '{began}' AND status <> 'skipped'""")
    late = [seconds for seconds, _ in rows]
    skipped = service.sql(f"""
        SELECT count(*) FILTER (WHERE status = 'skipped' AND error_code = 'already_active'),
            count(*) FILTER (WHERE status IN ('failed', 'partial')), coalesce(sum(slots_missed), 0)::int
        FROM etl_runs WHERE {_HEALTHY} AND scheduled_for >= '{began}'""")[0]
    # With one process a healthy run waits for one slice of 5 s, and for the healthy ones before it.
    longest = {"most": 7.0} if processes == 1 else {}
    return [
        Figure("healthy runs started", sum(not waits for _, waits in rows)),
        Figure("healthy runs that still wait", sum(waits for _, waits in rows)),
        Figure("healthy runs that failed", skipped[1], most=1),
        Figure("slots skipped, the run before was still active", skipped[0]),
        Figure("slots missed by the scheduler", skipped[2]),
        Figure("start after its slot, p50", percentile(late, 0.5), "s"),
        Figure("start after its slot, p95", percentile(late, 0.95), "s", most=5),
        Figure("start after its slot, p99", percentile(late, 0.99), "s", most=10),
        Figure("start after its slot, the last", max(late, default=None), "s", **longest),
    ]


def condition(service: Service, seen: Onlookers, deadly: list[str]) -> list[Figure]:
    """Memory, the probe, the cancel, and who was set aside."""
    sizes = [size / 2**20 for size in seen.memory.peaks.values()]
    figures = [
        Figure("largest worker process", max(sizes, default=None), "MiB"),
        Figure(f"worker processes over {LIMIT} + {SLACK} MiB", sum(size > LIMIT + SLACK for size in sizes), most=1),
        Figure("worker processes that ended", seen.memory.ended),
        Figure("/health/ready asked", seen.probe.asked),
        Figure("/health/ready not ready", seen.probe.failed, most=1),
        Figure("/health/ready, the slowest", seen.probe.slowest, "s"),
    ]
    if not deadly:
        return figures
    since = [(name, seen.shown.since[name]) for name in deadly if name in seen.shown.since]
    return [
        *figures,
        Figure("from cancel until another run is in its place", seen.cancelled, "s", most=10),
        Figure(f"set aside in /health, of {len(deadly)}", len(since), least=len(deadly)),
        Figure("slices of these after that", sum(_slices(service, *one) for one in since), most=1),
    ]


def endings(service: Service, sources: list[Neighbour], began: datetime) -> dict[str, dict[str, int]]:
    """By source, dead ones together by type: how often its runs ended in which way."""
    rows = service.sql(f"""
        SELECT source_name, status || coalesce(' ' || error_code, ''), count(*)::int FROM etl_runs
        WHERE created_at >= '{began}' GROUP BY 1, 2 ORDER BY 1, 3 DESC""")
    groups = {one.name: one.name if one.kind in {"hostile", "deadly"} else one.kind for one in sources}
    found: dict[str, dict[str, int]] = {group: {} for group in groups.values()}
    for name, ending, count in rows:
        group = found[groups[name]]
        group[ending] = group.get(ending, 0) + count
    return found


def table(figures: list[Figure], ends: dict[str, dict[str, int]]) -> str:
    """Figures with their aims, and how the runs ended."""
    lines = [one.line() for one in figures]
    for name, counts in ends.items():
        said = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items(), key=lambda one: -one[1]))
        lines.append(f"  {name:18} {said or 'no run'}")
    return "\n".join(lines)


def as_json(arguments: dict[str, Any], figures: list[Figure], ends: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {"arguments": arguments, "figures": [{**vars(one), "met": one.met} for one in figures], "endings": ends}


def _slices(service: Service, source: str, since: datetime) -> int:
    return int(
        service.sql(f"""
            SELECT count(*) FROM etl_run_events e JOIN etl_runs r USING (run_id)
            WHERE e.event = 'claimed' AND r.source_name = '{source}' AND e.at > '{since}'""")[0]
    )


_HEALTHY = "source_name LIKE 'healthy%' AND trigger = 'schedule'"
