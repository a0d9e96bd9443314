"""What a benchmark found: a figure of ours, one of the reference in the same run, and the ratio that was aimed at."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.speed.comparison import Comparison


@dataclass(frozen=True)
class Outcome:
    """One line of the table. `ratio` is what counts; `aim` says which way: at least or at most."""

    name: str
    ours: float
    reference: float
    unit: str
    ratio: float
    aim: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, unit: str, rounds: Sequence[tuple[float, float]], aim: str = "", **detail: Any) -> Outcome:
        """The medians of ours and of the reference, and of their ratio within each round.

        A machine that is slow for a minute is slow for both figures of a round.
        """
        ours, reference = (statistics.median(each[side] for each in rounds) for side in (0, 1))
        ratios = [ours / reference for ours, reference in rounds]
        return cls(name, ours, reference, unit, statistics.median(ratios), aim, {"ratios": ratios, **detail})

    @property
    def met(self) -> bool | None:
        """Whether the aim was met, None without one."""
        if not self.aim:
            return None
        sign, _, limit = self.aim.partition(" ")
        return self.ratio >= float(limit) if sign == ">=" else self.ratio <= float(limit)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as text."""
    lines = [f"{'benchmark':42} {'ours':>12} {'reference':>12} {'unit':10} {'ratio':>7}  aim"]
    for one in outcomes:
        verdict = {True: "met", False: "MISSED", None: ""}[one.met]
        lines.append(
            f"{one.name:42} {one.ours:12,.1f} {one.reference:12,.1f} {one.unit:10} {one.ratio:7.2f}  {one.aim} {verdict}"
        )
    return "\n".join(lines)


def as_json(outcomes: Sequence[Outcome | Comparison], arguments: dict[str, Any]) -> str:
    """The outcomes with what they were measured on."""
    machine = {"processor": platform.machine(), "cores": psutil.cpu_count(), "python": platform.python_version()}
    body = [{**vars(one), "met": one.met} for one in outcomes]
    return json.dumps({"machine": machine, "arguments": arguments, "outcomes": body}, indent=2, default=str)
