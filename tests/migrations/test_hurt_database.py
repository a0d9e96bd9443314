"""A database in which a crash had given raw ids twice is healed by the upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import alembic.command
import pytest

from db.session import Database
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner
from testkit.service import Servers, alembic_config, make_database

COUNT = 40


@pytest.fixture
def database(servers: Servers, migrated: str) -> Iterator[Database]:
    """One of its own, which can be taken down to an older schema."""
    made = Database(make_database(servers, "hurt", template="migrated"), name="tests", pool_size=4, patience=5)
    yield made
    made.close()


class Shop:
    """A file, a server that answers 304, and one that is asked for what changed, all with the same prices."""

    def __init__(self, runner: SourceRunner, fake_server: FakeServer) -> None:
        self.runner = runner
        self.price = 1
        paged = {"type": "api", "request": {"url": fake_server.on("/marked", self._marked)}}
        since = {"type": "api", "request": {"url": fake_server.on("/since", self._since)}}
        runner.declare(
            {"name": "full", "type": "csv", "file": "shop.csv"},
            {"name": "marked", **paged},
            {"name": "since", **since, "incremental": {"field": "seen", "param": "after"}},
            {"name": "sound", "type": "csv", "file": "sound.csv"},
        )
        self.change(1)
        runner.write("sound.csv", "id,price\n1,5\n")

    def change(self, price: int) -> None:
        self.price = price
        self.runner.write("shop.csv", "id,price\n" + "".join(f"{n},{price}\n" for n in range(COUNT)))

    def _records(self) -> list[dict[str, object]]:
        return [{"id": n, "price": self.price, "seen": f"2026-01-0{self.price}T00:00:00Z"} for n in range(COUNT)]

    def _marked(self, asked: Request) -> Response:
        mark = f'"{self.price}"'
        if asked.headers.get("if-none-match") == mark:
            return Response(status=304)
        return Response(as_json(self._records()).body, headers={"ETag": mark})

    def _since(self, asked: Request) -> Response:
        after = asked.query.get("after", "")
        return as_json([record for record in self._records() if str(record["seen"]) > after])

    def run_all(self) -> list[str]:
        return [self.runner.run(name)["status"] for name in ("full", "marked", "since", "sound")]

    def stale(self) -> int:
        query = "SELECT count(*) FROM unified_items WHERE source_name <> 'sound' AND amount <> :price"
        return int(self.runner.sql(query, price=self.price)[0])


def test_stale_items_and_endless_halving_are_healed(
    runner: SourceRunner, fake_server: FakeServer, tmp_path: Path
) -> None:
    shop = Shop(runner, fake_server)
    assert shop.run_all() == ["success"] * 4
    shop.change(2)
    # What a crash did: newer records got lower ids than older ones, and lost to them.
    runner.sql("SELECT setval('raw_data_id_seq', 1)")
    assert shop.run_all() == ["success"] * 4
    assert shop.stale() == 3 * COUNT - 1 or shop.stale() == 3 * COUNT
    assert shop.run_all() == ["success"] * 4
    assert shop.stale() > COUNT, "another run does not heal it"
    stuck = runner.queue("full")
    runner.messages.clear()
    runner.sql("UPDATE etl_runs SET status = 'running', stage = 'loading' WHERE run_id = :id", id=stuck)
    runner.sql(
        """INSERT INTO etl_batches (run_id, source_name, number, part, first_raw_id, last_raw_id, state)
        SELECT :id, 'full', 1, left('abababababababababab', n), 2, 2, CASE n WHEN 20 THEN 'extracted' ELSE 'halved' END
        FROM generate_series(0, 20) n""",
        id=stuck,
    )
    url = runner.database.engine.url.render_as_string(hide_password=False).replace("+psycopg2", "")
    sound = runner.sql("SELECT value FROM etl_checkpoints WHERE source_name = 'sound'")
    alembic.command.downgrade(alembic_config(url), "0004")
    alembic.command.upgrade(alembic_config(url), "head")
    assert runner.open_batches() == []
    assert (runner.show(stuck)["status"], runner.show(stuck)["error"]["code"]) == ("failed", "raw_ids_repeated")
    assert runner.sql("SELECT nextval('raw_data_id_seq') > max(id) FROM raw_data") == [True]
    assert runner.sql("SELECT value FROM etl_checkpoints WHERE source_name = 'sound'") == sound
    assert shop.run_all() == ["success"] * 4
    assert shop.stale() == 0
    assert runner.sql("SELECT count(*) FROM unified_items") == [3 * COUNT + 1]


def test_a_sound_database_keeps_its_checkpoints(runner: SourceRunner, fake_server: FakeServer) -> None:
    shop = Shop(runner, fake_server)
    shop.run_all()
    shop.change(2)
    shop.run_all()
    before = runner.sql("SELECT source_name, value FROM etl_checkpoints ORDER BY 1")
    waiting = runner.queue("full")
    url = runner.database.engine.url.render_as_string(hide_password=False).replace("+psycopg2", "")
    alembic.command.downgrade(alembic_config(url), "0004")
    alembic.command.upgrade(alembic_config(url), "head")
    assert runner.sql("SELECT source_name, value FROM etl_checkpoints ORDER BY 1") == before
    assert runner.show(waiting)["status"] == "queued"
