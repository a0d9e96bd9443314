"""The fault suite, short: the books must be clean, and the control arm must lose records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.settings import PROJECT


@pytest.mark.timeout(280)
def test_the_books_are_clean_and_the_control_arm_loses_records(tmp_path: Path) -> None:
    reports = _break(tmp_path, "--only", "kills,repeats,zombies,half_open,control", "--records", "10000")
    assert reports["control"]["verdict"]["lost"] > 0
    for name in ("kills", "repeats", "zombies", "half_open"):
        assert _wrong(reports[name]) == 0


@pytest.mark.timeout(900)
def test_the_books_are_clean_after_crashes_of_postgresql_at_chosen_points(tmp_path: Path) -> None:
    report = _break(tmp_path, "--only", "database_crashes", "--count", "16")["database_crashes"]
    assert _wrong(report) == 0
    assert sum(report["faults"].values()) >= 15


@pytest.mark.timeout(900)
def test_the_books_are_clean_after_crashes_in_the_other_lanes_and_in_deleting(tmp_path: Path) -> None:
    reports = _break(tmp_path, "--only", "lanes,deletions", "--count", "30")
    assert [_wrong(reports[name]) for name in ("lanes", "deletions")] == [0, 0]
    assert sum(reports["lanes"]["faults"].values()) >= 8


def _break(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the suite; its reports by scenario. It fails unless everything is as expected."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.faults", *arguments, "--seed", "3", "--json", str(report)],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {one["scenario"]: one for one in json.loads(report.read_text())}


def _wrong(report: dict[str, Any]) -> int:
    return sum(report["verdict"][name] for name in ("lost", "doubled", "stale", "stuck"))
