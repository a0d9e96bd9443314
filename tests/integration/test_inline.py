"""A run in one process: as a worker does it, with all the time in the world, and with no Redis."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from config.settings import PROJECT
from db.queries import sweep
from db.queries.runs import NewRun, queue_run
from etl.errors import AlreadyActiveError, SourceInactiveError, UnknownSourceError
from etl.mapping.mapper import Mapper
from etl.runs.outcome import Trigger
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from worker.inline import InlineRunner

SHOP = {"name": "shop", "type": "csv", "file": "shop.csv"}
COUNTS = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed")


@pytest.fixture
def inline(runner: SourceRunner) -> InlineRunner:
    return InlineRunner(runner.process)


def counts(run: Any) -> list[int]:
    return [getattr(run, f"records_{name}") for name in COUNTS]


def test_it_ends_as_a_workers_run_does(runner: SourceRunner, inline: InlineRunner) -> None:
    runner.write("shop.csv", "id,name,price\n1,a,1\n2,b,dear\n3,c,3\n3,c,3\n")
    runner.declare(SHOP, {**SHOP, "name": "other"})
    theirs = runner.run("other")
    ours = inline.run("shop")
    assert ours.status == theirs["status"] == "partial"
    assert counts(ours) == [theirs[f"records_{name}"] for name in COUNTS] == [4, 2, 0, 0, 1, 1]
    items = "SELECT external_id, title, amount FROM unified_items WHERE source_name = :name ORDER BY 1"
    assert runner.sql(items, name="shop") == runner.sql(items, name="other")


def test_what_fails_says_why(runner: SourceRunner, inline: InlineRunner) -> None:
    runner.declare(SHOP)
    run = inline.run("shop")
    assert (run.status, run.error_code) == ("failed", "file_not_found")
    assert "shop.csv" in run.error_message


def test_more_batches_than_there_is_room_for(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id\n" + "".join(f"{number}\n" for number in range(30)))
    runner.declare(SHOP)
    process = runner.process
    inline = InlineRunner(replace(process, settings=replace(process.settings, batch_size=1)))
    assert counts(inline.run("shop")) == [30, 30, 0, 0, 0, 0]


def test_what_has_to_wait_is_waited_for(runner: SourceRunner, inline: InlineRunner, fake_server: FakeServer) -> None:
    answers = [Response(status=503, headers={"Retry-After": "1"}), Response(b'[{"id": 1}]')]
    runner.declare({"name": "shop", "type": "api", "request": {"url": fake_server.on("/a", answers)}})
    assert inline.run("shop").status == "success"


@contextmanager
def sweepers(runner: SourceRunner) -> Iterator[list[object]]:
    """A sweeper of workers that have nothing to do; everything that it takes up."""
    found: list[object] = []
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.1):
            transact = runner.database.transact
            found.extend([transact(sweep.take_over_runs), transact(sweep.take_over_batches)])
            found.extend(transact(sweep.due_runs, queue_empty=True))
            found.extend(transact(sweep.due_batches, queue_empty=True))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("where", ["take", "normalize"])
def test_a_breakpoint_may_be_stood_at_for_longer_than_a_lease(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    runner.write("shop.csv", "id\n1\n")
    runner.declare(SHOP)
    go_on = getattr(Mapper, where)

    def stand(self: Mapper, records: Any) -> Any:
        monkeypatch.setattr(Mapper, where, go_on)
        time.sleep(5)
        return go_on(self, records)

    monkeypatch.setattr(Mapper, where, stand)
    monkeypatch.setattr(sweep, "GAP", 2)
    process = runner.process
    short = replace(process, settings=replace(process.settings, lease=timedelta(seconds=2)))
    with sweepers(runner) as taken:
        assert InlineRunner(short).run("shop").status == "success"
    assert [one for one in taken if one] == []


def test_who_leaves_cancels_the_run(
    runner: SourceRunner, inline: InlineRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.write("shop.csv", "id\n1\n")
    runner.declare(SHOP)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Mapper, "take", interrupt)
    with pytest.raises(KeyboardInterrupt):
        inline.run("shop")
    assert runner.sql("SELECT status, error_code FROM etl_runs") == [("cancelled", "cancelled")]
    monkeypatch.undo()
    assert inline.run("shop").status == "success"


def test_a_run_that_cannot_be_had_is_named(runner: SourceRunner, inline: InlineRunner) -> None:
    with pytest.raises(UnknownSourceError, match="'shop'"):
        inline.run("shop")
    runner.declare({**SHOP, "enabled": False})
    with pytest.raises(SourceInactiveError, match="'shop' is disabled"):
        inline.run("shop")
    runner.declare(SHOP)
    run_id = runner.queue("shop")
    with pytest.raises(AlreadyActiveError, match=str(run_id)):
        inline.run("shop")
    assert runner.sql("SELECT run_id, status FROM etl_runs") == [(run_id, "queued")]


def test_runs_of_others_are_left_to_the_workers(
    runner: SourceRunner, inline: InlineRunner, fake_server: FakeServer
) -> None:
    runner.write("shop.csv", "id\n1\n")
    runner.declare(SHOP, {"name": "new", "type": "api", "request": {"url": fake_server.json("/a", [])}})
    runner.database.transact(queue_run, NewRun(uuid4(), "new", "api", Trigger.API))
    assert inline.run("shop").status == "success"
    assert runner.sql("SELECT status, dispatched_at FROM etl_runs WHERE source_name = 'new'") == [("queued", None)]


DEBUG = """
import sys
from etl.mapping.mapper import Mapper
from worker.__main__ import main

go_on = Mapper.take

def take(self, records):
    breakpoint()
    return go_on(self, records)

Mapper.take = take
sys.exit(main(["debug", "shop"]))
"""


def test_breakpoints_work_and_redis_is_not_needed(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id\n1\n")
    runner.declare(SHOP)
    settings = runner.settings
    environment = {
        **os.environ,
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CSV_ROOTS": str(runner.folder),
        "SOURCES_FILE": str(settings.sources_file),
        "STATE_DIR": str(settings.state_dir),
    }
    command = [sys.executable, "-c", DEBUG]
    typed = "p 6 * 7\n" + "continue\n" * 9
    done = subprocess.run(
        command, input=typed, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 42" in done.stdout
    assert "shop: success" in done.stdout
    assert "extracted 1  inserted 1" in done.stdout
