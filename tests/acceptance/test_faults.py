"""The fault suite, short: the books must be clean, and the control arm must lose records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from settings import PROJECT


@pytest.mark.timeout(280)
def test_the_books_are_clean_and_the_control_arm_loses_records(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = (
        "--only",
        "kills,repeats,zombies,half_open,control",
        "--records",
        "10000",
        "--seed",
        "3",
        "--json",
        str(report),
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    done = subprocess.run(
        [sys.executable, "-m", "bench.faults", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = {one["scenario"]: one["verdict"] for one in json.loads(report.read_text())}
    assert verdicts["control"]["lost"] > 0
    for name in ("kills", "repeats", "zombies", "half_open"):
        assert (
            verdicts[name]["lost"]
            == verdicts[name]["doubled"]
            == verdicts[name]["stale"]
            == verdicts[name]["stuck"]
            == 0
        )
