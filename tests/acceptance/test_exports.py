"""An export over real HTTP: a reader sees when it did not come to its end, and the service stays small."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess

import psutil
import pytest
import requests

from config.settings import PROJECT
from testkit.service import PYTHON, Service, wait_until

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


def test_a_file_whose_writer_is_killed_is_finished_by_the_next(service: Service) -> None:
    fill(service)
    path = service.folder / "items.ndjson.gz"
    part = path.with_name(path.name + ".part.json")
    environment = {**service.environment}
    command = [PYTHON, "-m", "web", "export", str(path)]
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE) as writer:
        wait_until(lambda: part.exists() and json.loads(part.read_text())["items"] > COUNT // 10, every=0.005)
        writer.kill()
    assert not path.exists()
    written = json.loads(part.read_text())["items"]
    assert COUNT // 10 < written < COUNT
    done = service.command(*command)
    assert done.returncode == 0, done.stderr
    *items, end = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    ids = [json.loads(line)["external_id"] for line in items]
    assert ids == [str(number) for number in range(1, COUNT + 1)]
    sum_ = hashlib.sha256(b"".join(items)).hexdigest()
    assert json.loads(end) == json.loads(end) | {"items": COUNT, "sha256": sum_, "complete": True}
    assert done.stdout.split() == [sum_]


def test_a_wrong_option_is_named(service: Service) -> None:
    for option, value in (("--columns", "id,price"), ("--source-name", "nobody"), ("--format", "xml")):
        done = service.command(PYTHON, "-m", "web", "export", str(service.folder / "x.csv"), option, value)
        assert done.returncode == 1
        assert option in done.stderr or value in done.stderr
