"""What the neighbours benchmark counts, and whom it declares."""

from __future__ import annotations

import http.client

import pytest

from bench.neighbours import launcher
from bench.neighbours.figures import Figure, percentile
from bench.neighbours.sources import KINDS, neighbours
from etl.declare.source import parse


def test_a_percentile_is_one_of_the_values() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert [percentile(hundred, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([3.0, 1.0], 0.5) == 1
    assert percentile([7.0], 0.01) == 7
    assert percentile([], 0.5) is None


def test_an_aim_is_below_its_most_and_not_below_its_least() -> None:
    assert Figure("late", 4.9, "s", most=5).met
    assert not Figure("late", 5.0, "s", most=5).met
    assert Figure("set aside", 3, least=3).met
    assert not Figure("set aside", 2, least=3).met
    assert Figure("slots", 2).met is None


def test_what_never_happened_misses_its_aim() -> None:
    cancelled = Figure("cancel", None, "s", most=10)
    assert not cancelled.met
    assert cancelled.line().split() == ["cancel", "never", "s", "<", "10", "MISSED"]


def test_every_source_can_be_declared_and_has_a_host_of_its_own() -> None:
    """A breaker must not take two of them for one."""
    made = neighbours({"healthy": 20, "dead": 250, "dripping": 20, "hostile": 1, "deadly": 1})
    assert len({one.address for one in made}) == len({one.name for one in made}) == len(made)
    assert {one.kind for one in made} == set(KINDS)
    assert [parse(one.document(80)).name for one in made] == [one.name for one in made]
    assert sum(one.answer is None for one in made) == 125


def test_a_defect_is_set_off_by_its_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_off, asked = list[str](), list[str]()
    monkeypatch.setattr(launcher, "DEFECTS", {"/grows": lambda: set_off.append("grows")})
    monkeypatch.setattr(http.client.HTTPConnection, "putrequest", lambda *arguments: asked.append(arguments[2]))
    launcher.build_in()
    connection = http.client.HTTPConnection("127.0.0.1")
    connection.putrequest("GET", "/healthy_1")
    assert set_off == []
    connection.putrequest("GET", "/grows")
    assert (set_off, asked) == (["grows"], ["/healthy_1", "/grows"])
