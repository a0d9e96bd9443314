"""No answer of the HTTP interface fails, or is other than its description says; many more by `make test-api`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.fuzz import SCHEMATHESIS
from config.settings import PROJECT


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="`make .venv/fuzz/installed` fetches what asks")
def test_every_answer_is_as_described() -> None:
    command = [sys.executable, "-m", "bench.fuzz", "--cases", "170"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
