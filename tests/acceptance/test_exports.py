"""An export over real HTTP: a reader sees when it did not come to its end, and the service stays small."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest
import requests

from testkit.service import Service, wait_until

COUNT = 60_000
MANY = 64 * 1024 * 1024


def fill(service: Service) -> None:
    service.sql(f"""
        INSERT INTO unified_items (source_type, source_name, external_id, title, description, raw_data_id,
            raw_ingested_at, run_id, content_hash, mapping_version)
        SELECT 'csv', 'shop', n::text, 'thing ' || n, repeat('x', 500), n, now(), gen_random_uuid(), '\\x00', 1
        FROM generate_series(1, {COUNT}) n
    """)


def worker_of(service: Service) -> psutil.Process:
    (child,) = psutil.Process(service.pid("web")).children()
    return child


def test_it_comes_whole_and_costs_no_memory(service: Service) -> None:
    fill(service)
    service.start_web()
    process = worker_of(service)
    requests.get(f"{service.url}/data", timeout=10)
    before, most, items, last = process.memory_info().rss, 0, 0, b""
    with requests.get(f"{service.url}/data/export", stream=True, timeout=60) as answer:
        for line in answer.iter_lines(chunk_size=65536):
            items, last = items + 1, line
            if items % 5000 == 0:
                most = max(most, process.memory_info().rss)
    assert json.loads(last)["items"] == items - 1 == COUNT
    assert most - before < MANY


def test_a_killed_process_is_seen_by_the_reader(service: Service) -> None:
    fill(service)
    service.start_web()
    with requests.get(f"{service.url}/data/export?format=csv", stream=True, timeout=60) as answer:
        export_id = answer.headers["Export-Id"]
        chunks = answer.iter_content(8192)
        next(chunks)
        os.kill(worker_of(service).pid, signal.SIGKILL)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for _ in chunks:
                pass
    wait_until(lambda: service.get("/health/ready")["status"] == "ready", 30)
    assert service.get(f"/data/export/{export_id}")["state"] in {"running", "broken"}


def test_a_reader_that_leaves_gives_its_place_back(service: Service) -> None:
    fill(service)
    service.start_web()
    for _ in range(4):
        with requests.get(f"{service.url}/data/export", stream=True, timeout=60) as answer:
            assert answer.status_code == 200
            next(answer.iter_content(8192))
        wait_until(lambda: service.sql("SELECT 1 FROM exports WHERE state = 'running'") == [], 20)
    assert service.sql("SELECT DISTINCT state FROM exports") == ["broken"]
