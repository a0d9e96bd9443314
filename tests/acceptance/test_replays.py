"""Replays by real processes, which die in the middle."""

from __future__ import annotations

import signal
import time

from testkit.service import Servers, Service, wait_until

COUNT = 20_000
# More than is driven again before a cancel arrives.
MANY = 60_000
KEY = "a" * 40
MAPPED = "sources:\n  - {name: shop, type: csv, file: shop.csv, map: {external_id: id, title: price, amount: price}}\n"
# What no run but a fetch may touch.
OF_FETCH = "SELECT value, version, run_id FROM etl_checkpoints"


def test_a_replay_loses_nothing_when_workers_broker_and_database_die(service: Service, servers: Servers) -> None:
    service.environment["API_KEYS"] = KEY
    service.write_csv(COUNT)
    service.start_web()
    service.start_worker()
    service.await_end(service.run("shop"))
    before = service.sql(OF_FETCH)
    # The source is gone, and so is nobody's record.
    (service.folder / "shop.csv").unlink()
    assert service.declare(MAPPED).returncode == 0
    run_id = replay(service)
    wait_until(lambda: driven(service, run_id) > 0)
    service.kill("worker")
    service.start_worker()
    time.sleep(1)
    service.flush_broker()
    wait_until(lambda: driven(service, run_id) > COUNT // 4)
    servers.crash("postgres", signal.SIGKILL)
    servers.start("postgres")
    run = service.await_end(run_id)
    assert (run["status"], run["records_extracted"], run["records_not_loaded"]) == ("success", COUNT, 0)
    assert (run["records_updated"], run["records_corrected"]) == (COUNT, COUNT)
    assert service.sql("SELECT title, mapping_version, count(*) FROM unified_items GROUP BY 1, 2") == [("1", 2, COUNT)]
    assert service.sql("SELECT count(*), count(DISTINCT id) FROM raw_data") == [(COUNT, COUNT)]
    assert service.sql(OF_FETCH) == before


def test_a_cancelled_replay_stops_and_leaves_what_it_has_done(service: Service) -> None:
    service.environment["API_KEYS"] = KEY
    service.write_csv(MANY)
    service.start_web()
    service.start_worker()
    service.await_end(service.run("shop"))
    assert service.declare(MAPPED).returncode == 0
    run_id = replay(service)
    wait_until(lambda: driven(service, run_id) > 0)
    assert service.post(f"/runs/{run_id}/cancel", None, key=KEY).status_code == 202
    wait_until(lambda: not service.sql("SELECT 1 FROM etl_batches WHERE state IN ('extracted', 'normalized')"))
    time.sleep(1)
    (items, done) = service.sql("SELECT count(*), count(*) FILTER (WHERE mapping_version = 2) FROM unified_items")[0]
    assert items == MANY
    assert 0 < done < MANY
    # The next one does the rest.
    again = service.await_end(replay(service))
    assert (again["status"], again["records_updated"]) == ("success", MANY - done)


def replay(service: Service) -> str:
    response = service.post("/replays", {"source_name": "shop"}, key=KEY)
    assert response.status_code == 202, response.text
    assert response.headers["Location"].endswith(response.json()["run_id"])
    return str(response.json()["run_id"])


def driven(service: Service, run_id: str) -> int:
    return int(service.get(f"/runs/{run_id}")["records_updated"])
