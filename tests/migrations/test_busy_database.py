"""The newest migration on a database that is in use; with a million items by `make upgrade`."""

from __future__ import annotations

import subprocess
import sys

from config.settings import PROJECT


def upgraded(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.upgrade", "--items", "5000", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)


def test_nothing_is_lost_and_nobody_waits_for_long() -> None:
    done = upgraded()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_migration_that_keeps_others_from_writing_is_found_out() -> None:
    done = upgraded("--control")
    assert done.returncode == 1
    assert "kept others from writing for 3." in done.stderr
