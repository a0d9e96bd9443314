"""Whichever process of a web is asked, it says what all have counted, also when one has died."""

from __future__ import annotations

import os
import signal

import psutil
import requests

from testkit.service import Service, wait_until


def counted(service: Service) -> float:
    text = requests.get(f"{service.url}/metrics", timeout=10).text
    name = 'kasparro_http_request_seconds_count{method="GET",operation="Runs",status="200"}'
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)


def workers(service: Service) -> list[int]:
    return [child.pid for child in psutil.Process(service.pid("web")).children() if child.is_running()]


def test_all_processes_count_together(service: Service) -> None:
    service.start_web("--workers=2")
    wait_until(lambda: len(workers(service)) >= 2)
    for _ in range(60):
        # A connection of its own, for any process to take.
        assert requests.get(f"{service.url}/runs", timeout=10).status_code == 200
    assert {counted(service) for _ in range(20)} == {60.0}
    before = set(workers(service))
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(set(workers(service)) - before) >= 1)
    service.get("/health/ready")
    assert {counted(service) for _ in range(20)} == {60.0}
