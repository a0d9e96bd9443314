"""A database or a broker that is full: nothing is held against a batch, and `/health` says what is wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
import redis
from flask.testing import FlaskClient

from broker.trouble import KEY
from db.errors import translate
from db.queries.batches import MAX_BATCH_ATTEMPTS, claim_batch, load_batch
from db.queries.failures import release_batch
from db.queries.processes import beat_heart
from db.queries.runs import claim_run
from db.queries.sweep import give_up_run, take_over_batches, take_over_runs, worn_out_runs
from db.session import Database
from etl.errors import (
    ETLError,
    LeaseLostError,
    StorageConflictError,
    StorageTroubleError,
    StorageUnavailableError,
)
from etl.runs.messages import ExtractMessage
from testkit.runner import SourceRunner
from testkit.service import Servers
from web.app import create_app
from worker import loading
from worker.process import Process

DISK_FULL, CANCELLED = "53100", "57014"


@contextmanager
def failing(runner: SourceRunner, code: str, source: str = "%", table: str = "unified_items") -> Iterator[None]:
    """Every row of these sources is refused by the database."""
    runner.sql(
        f"""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN IF NEW.source_name LIKE '{source}' THEN RAISE 'planted' USING ERRCODE = '{code}'; END IF;
        RETURN NEW; END$$"""
    )
    runner.sql(f"CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fail()")
    try:
        yield
    finally:
        runner.sql("DROP FUNCTION fail CASCADE")


def queued(runner: SourceRunner, process: Process) -> ExtractMessage:
    """A run of one record, by a process that does not wait for the database."""
    declare(runner, "shop")
    runner.database = process.database
    runner.write("shop.csv", "id,name\n1,thing\n")
    return ExtractMessage(runner.queue("shop"))


@pytest.fixture
def process(runner: SourceRunner) -> Iterator[Process]:
    """One that does not wait for the database."""
    database = Database(runner.settings.database_url, name="hasty", patience=0.1)
    yield replace(runner.process, database=database)
    database.close()


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


def stored(runner: SourceRunner, name: str = "shop", *, rows: int = 4) -> int:
    """A batch of a source that is extracted, and not loaded yet."""
    runner.write(f"{name}.csv", "id,name\n" + "".join(f"{n},thing {n}\n" for n in range(rows)))
    run_id = runner.queue(name)
    runner.step(ExtractMessage(run_id))
    (batch_id,) = runner.sql("SELECT batch_id FROM etl_batches WHERE source_name = :name", name=name)
    return int(batch_id)


def attempt(runner: SourceRunner, process: Process, batch_id: int) -> ETLError | None:
    """What a worker does that gets the message of a batch, whenever the batch may be had again."""
    runner.sql("UPDATE etl_batches SET not_before = NULL WHERE batch_id = :id", id=batch_id)
    try:
        loading.normalize(process, batch_id)
        loading.load(process, batch_id)
    except ETLError as error:
        return error
    return None


def batch(runner: SourceRunner, batch_id: int) -> Any:
    (row,) = runner.sql("SELECT state, attempt, failure FROM etl_batches WHERE batch_id = :id", id=batch_id)
    return row


def pass_minutes(runner: SourceRunner, minutes: int) -> None:
    runner.sql(f"UPDATE etl_batches SET failing_since = failing_since - interval '{minutes} minutes'")


def declare(runner: SourceRunner, *names: str) -> None:
    runner.declare(*({"name": name, "type": "csv", "file": f"{name}.csv"} for name in names))


def test_a_full_disk_is_not_held_against_a_batch(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)
    with failing(runner, DISK_FULL):
        for _ in range(3 * MAX_BATCH_ATTEMPTS):
            error = attempt(runner, process, batch_id)
            assert isinstance(error, StorageTroubleError)
            assert error.message == "the database cannot write: there is no room left on its disk"
        assert batch(runner, batch_id) == ("normalized", 0, DISK_FULL)
    assert attempt(runner, process, batch_id) is None
    assert batch(runner, batch_id) == ("loaded", 1, None)
    assert runner.sql("SELECT count(*) FROM unified_items") == [4]


def test_a_batch_that_alone_fails_for_long_ends(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop")
    batch_id = stored(runner, rows=1)
    with failing(runner, CANCELLED):
        assert isinstance(attempt(runner, process, batch_id), StorageConflictError)
        pass_minutes(runner, 16)
        for _ in range(2 * MAX_BATCH_ATTEMPTS):
            attempt(runner, process, batch_id)
    assert batch(runner, batch_id)[0] == "loaded"
    assert runner.sql("SELECT rule FROM rejected_records") == ["poison"]
    assert runner.sql("SELECT status FROM etl_runs") == ["failed"]


def test_halves_inherit_for_how_long_it_has_failed(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)
    with failing(runner, CANCELLED):
        attempt(runner, process, batch_id)
        pass_minutes(runner, 16)
        for _ in range(MAX_BATCH_ATTEMPTS + 1):
            attempt(runner, process, batch_id)
        assert batch(runner, batch_id)[0] == "halved"
        for half in runner.open_batches():
            attempt(runner, process, half)
            assert batch(runner, half)[1] == 1


def test_while_others_fail_of_the_same_it_never_counts(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop", "other")
    mine, others = stored(runner), stored(runner, "other")
    with failing(runner, DISK_FULL):
        attempt(runner, process, mine)
        attempt(runner, process, others)
        pass_minutes(runner, 600)
        for _ in range(2 * MAX_BATCH_ATTEMPTS):
            attempt(runner, process, mine)
            attempt(runner, process, others)
        assert {batch(runner, one)[:2] for one in (mine, others)} == {("normalized", 0)}
    with failing(runner, DISK_FULL, "shop"):
        assert attempt(runner, process, others) is None
        for _ in range(2 * MAX_BATCH_ATTEMPTS):
            attempt(runner, process, mine)
    assert batch(runner, mine)[0] == "halved"


@pytest.mark.parametrize(
    ("raised", "known"),
    [
        (psycopg2.OperationalError("server closed the connection unexpectedly"), StorageUnavailableError),
        (psycopg2.InterfaceError("connection already closed"), StorageUnavailableError),
        # as it comes out of a COPY
        (psycopg2.DatabaseError("server closed the connection unexpectedly"), StorageUnavailableError),
        (psycopg2.ProgrammingError("no results to fetch"), type(None)),
        (psycopg2.DataError("integer out of range"), type(None)),
    ],
)
def test_a_lost_server_is_told_from_a_defect(raised: psycopg2.Error, known: type) -> None:
    assert type(translate(raised)) is known


def test_attempts_do_not_count_that_ended_with_the_server(runner: SourceRunner) -> None:
    """Nobody could give them back: the server was away, and has started since."""
    declare(runner, "shop")
    run_id = runner.queue("shop")
    runner.sql("UPDATE etl_runs SET attempt = 4")
    assert runner.database.transact(claim_run, run_id, "w", 60.0)
    lost = "UPDATE etl_runs SET lease_expires_at = now() - interval '1 s', claimed_at = pg_postmaster_start_time() + :late * interval '1 s'"
    runner.sql(lost, late=-1)
    assert runner.database.read(worn_out_runs) == []
    assert runner.database.transact(take_over_runs) == 1
    assert runner.sql("SELECT attempt FROM etl_runs") == [4]
    runner.sql("UPDATE etl_runs SET not_before = NULL")
    assert runner.database.transact(claim_run, run_id, "w", 60.0)
    runner.sql(lost, late=1)
    assert runner.database.read(worn_out_runs) == [run_id]


def test_pauses_grow_to_a_minute(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)
    pause = "SELECT extract(epoch FROM not_before - clock_timestamp())::int FROM etl_batches"
    with failing(runner, DISK_FULL):
        attempt(runner, process, batch_id)
        assert runner.sql(pause)[0] <= 5
        pass_minutes(runner, 2)
        attempt(runner, process, batch_id)
        assert 30 <= runner.sql(pause)[0] <= 32
        pass_minutes(runner, 10)
        attempt(runner, process, batch_id)
        assert 59 <= runner.sql(pause)[0] <= 60


def test_who_lost_a_batch_gives_the_attempt_back(
    runner: SourceRunner, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)

    def late(*arguments: Any) -> bool:
        """The lease ends while it works, and another takes the batch."""
        runner.sql("UPDATE etl_batches SET lease_expires_at = clock_timestamp() - interval '1 s'")
        runner.database.transact(take_over_batches)
        runner.sql("UPDATE etl_batches SET token = token + 1")
        return load_batch(*arguments)

    for _ in range(2 * MAX_BATCH_ATTEMPTS):
        with monkeypatch.context() as patched:
            patched.setattr(loading, "load_batch", late)
            attempt(runner, process, batch_id)
    assert process.owed == {(batch_id, "normalized")}
    assert attempt(runner, process, batch_id) is None
    assert batch(runner, batch_id)[0] == "loaded"
    assert runner.sql("SELECT count(*) FROM unified_items") == [4]


def test_a_run_whose_records_find_no_room_goes_on_later(runner: SourceRunner, process: Process) -> None:
    message = queued(runner, process)
    with failing(runner, DISK_FULL, table="raw_data"):
        for _ in range(8):
            runner.sql("UPDATE etl_runs SET not_before = NULL")
            with pytest.raises(StorageTroubleError):
                runner.step(message)
        run = runner.show(message.run_id)
        assert (run["status"], run["stage"]) == ("running", "waiting")
    runner.sql("UPDATE etl_runs SET not_before = NULL")
    runner.messages = [message]
    runner.drain()
    assert runner.show(message.run_id)["status"] == "success"


def test_a_run_that_alone_fails_for_long_is_given_up(runner: SourceRunner, process: Process) -> None:
    message = queued(runner, process)
    wait = "UPDATE etl_runs SET not_before = NULL, failing_since = failing_since - :m * interval '1 min'"
    with failing(runner, CANCELLED, table="raw_data"):
        for minutes in (0, 16, 0, 0, 0, 0):
            runner.sql(wait, m=minutes)
            with pytest.raises(StorageConflictError):
                runner.step(message)
        for given_up in runner.database.read(worn_out_runs):
            runner.database.transact(give_up_run, given_up)
        assert runner.show(message.run_id)["error"]["code"] == "worker_lost"


def test_others_fail_also_while_they_are_at_it(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop", "other")
    mine, others = stored(runner), stored(runner, "other")
    with failing(runner, DISK_FULL):
        attempt(runner, process, mine)
        attempt(runner, process, others)
        pass_minutes(runner, 600)
        runner.sql("UPDATE etl_batches SET not_before = NULL WHERE batch_id = :id", id=others)
        assert runner.database.transact(claim_batch, others, "normalized", 60.0)
        for _ in range(2 * MAX_BATCH_ATTEMPTS):
            attempt(runner, process, mine)
    assert batch(runner, mine)[:2] == ("normalized", 0)


def test_a_release_that_is_repeated_counts_once(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)
    for _ in range(2):
        runner.sql("UPDATE etl_batches SET not_before = NULL")
        claim = runner.database.transact(claim_batch, batch_id, "extracted", 60.0)
        assert claim
        runner.database.transact(release_batch, claim, 0.0, None)
    assert batch(runner, batch_id)[1] == 2
    runner.sql("UPDATE etl_batches SET not_before = NULL")
    claim = runner.database.transact(claim_batch, batch_id, "extracted", 60.0)
    assert claim
    for _ in range(2):
        runner.database.transact(release_batch, claim, 0.0, DISK_FULL)
    assert batch(runner, batch_id)[1] == 2


def test_a_batch_that_computes_longer_than_its_lease_is_to_blame(
    runner: SourceRunner, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)
    spent = itertools.count(0, 1000)
    monkeypatch.setattr("worker.loading.time.thread_time", lambda: float(next(spent)))
    real = loading.normalize

    def late(*_: Any) -> bool:
        raise LeaseLostError("it took too long")

    monkeypatch.setattr(loading, "stage_batch", late)
    with pytest.raises(LeaseLostError):
        real(process, batch_id)
    assert process.owed == set()


def test_what_failed_before_is_forgotten_with_success(runner: SourceRunner, process: Process) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)
    runner.sql("UPDATE etl_batches SET failing_since = now(), failure = '53100'")
    loading.normalize(process, batch_id)
    assert batch(runner, batch_id) == ("normalized", 0, None)


# --- health


def reasons(client: FlaskClient) -> dict[str, str]:
    return {reason["code"]: reason["message"] for reason in json.loads(client.get("/health").data)["reasons"]}


def test_health_says_what_fails_the_database(runner: SourceRunner, process: Process, client: FlaskClient) -> None:
    declare(runner, "shop")
    batch_id = stored(runner)
    with failing(runner, DISK_FULL):
        attempt(runner, process, batch_id)
    assert reasons(client)["database_failing"] == (
        "1 batch cannot be written and wait; the database cannot write: there is no room left on its disk"
    )
    attempt(runner, process, batch_id)
    assert "database_failing" not in reasons(client)


def test_health_says_it_when_nothing_at_all_can_be_written(client: FlaskClient, servers: Servers) -> None:
    noted = redis.Redis.from_url(servers.valkey.url)
    noted.set(KEY, "the database cannot write: there is no room left on its disk", ex=60)
    try:
        assert reasons(client)["database_failing"] == "the database cannot write: there is no room left on its disk"
    finally:
        noted.delete(KEY)


def test_health_says_that_redis_is_full(client: FlaskClient, servers: Servers) -> None:
    server = redis.Redis.from_url(servers.valkey.url)
    before = server.config_get("maxmemory")["maxmemory"]
    assert "broker_full" not in reasons(client)
    server.config_set("maxmemory", str(server.info()["used_memory"]))
    try:
        assert "its memory is used up" in reasons(client)["broker_full"]
    finally:
        server.config_set("maxmemory", str(before))


def test_health_says_that_nobody_claims_slots(runner: SourceRunner, client: FlaskClient) -> None:
    declare(runner, "shop", "other")
    due = "UPDATE sources SET next_run_at = clock_timestamp() - make_interval(secs => :seconds)"
    runner.sql(due, seconds=20)
    assert "scheduler_silent" not in reasons(client)
    runner.sql(due, seconds=40)
    assert "the slots of 2 sources" in reasons(client)["scheduler_silent"]
    runner.database.transact(beat_heart, "beat@test", "beat", 0)
    assert "scheduler_silent" not in reasons(client)
    runner.sql(due, seconds=400)
    assert "scheduler_silent" in reasons(client)
    runner.sql("UPDATE sources SET paused_until = clock_timestamp() + interval '1 hour'")
    assert "scheduler_silent" not in reasons(client)
