"""The sources of the cookbook, as they stand there, against answers as their services give them."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
import yaml
from sqlalchemy import Connection

from config.settings import PROJECT
from db.queries import sweep
from db.queries.share import send_slow_runs
from db.session import Database
from etl import secrets
from etl.declare.catalog import load_catalog
from etl.declare.source import parse, secrets_of
from etl.runs.messages import BatchMessage, ExtractMessage, Message
from testkit.fake_server import FakeServer, Request, Response
from testkit.leases import expire_leases
from testkit.runner import SourceRunner
from worker.closing import close
from worker.sweeper import each_run

RECORDED = Path(__file__).parent / "cookbook"
TEXT = (PROJECT / "docs/cookbook.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SOURCES: dict[str, dict[str, Any]] = {source["name"]: source for source in map(yaml.safe_load, EXAMPLES)}
# More messages than any of these runs takes, however often it is killed.
MANY = 500


class Service:
    """A service of the outside world: its recorded answers, with links that lead to the fake server.

    `run` is the run of the source that asks; an answer may be for one of them only. What is asked for in no recorded
    way, or lacks the headers `asked_with`, is refused and kept in `unknown`.
    """

    def __init__(self, name: str, server: FakeServer) -> None:
        self.document = copy.deepcopy(SOURCES[name])
        request = self.document["request"]
        # A token is kept for as long as it lives, so no two tests have the same secret.
        self.secrets = {name: f"the-value-of-{name}-{uuid4().hex}" for name in secrets_of(parse(self.document))}
        text = (RECORDED / f"{name}.json").read_text(encoding="utf-8").replace(_origin(request["url"]), server.url)
        for secret, value in self.secrets.items():
            text = text.replace(f"${{{secret}}}", value)
        self.recorded = json.loads(text)
        self.run = 1
        self.asked: list[Request] = []
        self.unknown: list[Request] = []
        self._path = urlsplit(request["url"]).path
        for part, key in ((request, "url"), (request.get("auth", {}), "token_url")):
            if key in part:
                part[key] = part[key].replace(_origin(part[key]), server.url)
        for path in {self._path, *(answer.get("path", self._path) for answer in self.recorded["answers"])}:
            server.on(path, self._answer)

    @property
    def expected(self) -> dict[str, dict[str, Any]]:
        return {item["external_id"]: item for item in self.recorded["expected"]}

    def first_asked(self) -> dict[str, str]:
        """The query by which a run began."""
        return next(asked.query for asked in self.asked if asked.path == self._path)

    def _answer(self, asked: Request) -> Response:
        self.asked.append(asked)
        fitting = [answer for answer in self.recorded["answers"] if self._fits(answer, asked)]
        if len(fitting) != 1:
            self.unknown.append(asked)
            return Response(b'{"message": "no answer, or more than one, is recorded"}', 403)
        (answer,) = fitting
        return Response(json.dumps(answer["body"]).encode(), answer["status"], answer["headers"])

    def _fits(self, answer: dict[str, Any], asked: Request) -> bool:
        is_here = answer.get("path", self._path) == asked.path and answer.get("run", self.run) == self.run
        headers = answer.get("asked_with", self.recorded["asked_with"])
        return is_here and headers.items() <= asked.headers.items() and has(asked, answer["query"])


def has(asked: Request, query: dict[str, str | None]) -> bool:
    """Whether a request has these parameters, and lacks those that are None."""
    return all(asked.query.get(name) == value for name, value in query.items())


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    secrets.know({})


@pytest.fixture
def service(
    request: pytest.FixtureRequest, runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> Service:
    """A service whose source is declared, with its secrets set."""
    service = Service(request.param, fake_server)
    for secret, value in service.secrets.items():
        monkeypatch.setenv(secret, value)
    runner.declare(service.document)
    return service


each_service = pytest.mark.parametrize("service", SOURCES, indirect=True)


def items(runner: SourceRunner) -> dict[str, dict[str, Any]]:
    """The items by their ids, which no two of them share."""
    found = runner.sql("SELECT to_jsonb(i) FROM unified_items i ORDER BY id")
    by_id = {item["external_id"]: item for item in found}
    assert len(by_id) == len(found)
    return by_id


def check_items(runner: SourceRunner, service: Service) -> None:
    """Each expected record is there once, as expected, and nothing else; all fields of the map are expected."""
    found = items(runner)
    assert found.keys() == service.expected.keys()
    for external_id, expected in service.expected.items():
        assert expected.keys() == {*service.document["map"], "metadata"}
        metadata = found[external_id]["metadata"]
        assert {key: metadata[key] for key in expected["metadata"]} == expected["metadata"]
        fields = expected.keys() - {"metadata"}
        assert {key: found[external_id][key] for key in fields} == {key: expected[key] for key in fields}
    assert runner.sql("SELECT message FROM rejected_records") == []


def check_requests(service: Service) -> None:
    """All that was asked for is recorded, and all that is recorded for the run was asked for."""
    assert service.unknown == []
    for answer in service.recorded["answers"]:
        if answer.get("run") == service.run:
            assert any(has(asked, answer["query"]) for asked in service.asked)


def ask_again(runner: SourceRunner, service: Service) -> None:
    """A second run changes nothing, and asks from where the first one ended: for that only there are answers."""
    before, first = items(runner), service.first_asked()
    service.run, service.asked = 2, []
    run = runner.run(service.document["name"])
    assert (run["status"], run["error"], run["records_changed"]) == ("success", None, 0)
    check_requests(service)
    assert (service.first_asked() != first) == ("incremental" in service.document)
    assert items(runner) == before


@each_service
def test_a_source_of_the_cookbook_loads_each_record_once(runner: SourceRunner, service: Service) -> None:
    run = runner.run(service.document["name"])
    assert (run["status"], run["error"]) == ("success", None)
    counts = {"records_duplicate": 0, "records_failed": 0, "records_updated": 0, "rows_skipped": 0}
    counts |= service.recorded["counts"]
    assert {name: run[name] for name in counts} == counts
    assert runner.sql("SELECT detail FROM etl_run_events WHERE event IN ('warning', 'drift', 'retry')") == []
    check_items(runner, service)
    check_requests(service)
    said = str([(asked.headers, asked.body) for asked in service.asked])
    assert [name for name, value in service.secrets.items() if value not in said] == []
    ask_again(runner, service)


def dies_of(monkeypatch: pytest.MonkeyPatch, commits: int, step: Callable[[], None]) -> bool:
    """Whether a process that is killed after so many commits is killed in this step."""
    whole, done = Database.transaction, 0

    @contextlib.contextmanager
    def transaction(self: Database) -> Iterator[Connection]:
        nonlocal done
        with whole(self) as connection:
            yield connection
        done += 1
        if done == commits:
            raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "transaction", transaction)
        try:
            step()
        except SystemExit:
            return True
    return False


def sweep_up(runner: SourceRunner) -> None:
    """What the sweeper does in time: who died is taken over from, and what was to be sent is sent."""
    expire_leases(runner)
    runner.database.transact(sweep.take_over_runs)
    runner.database.transact(sweep.take_over_batches)
    for table in ("etl_runs", "etl_batches"):
        runner.sql(f"UPDATE {table} SET not_before = NULL, dispatched_at = dispatched_at - interval '1 hour'")
    runner.messages += runner.database.transact(send_slow_runs)
    runner.messages += runner.database.transact(sweep.due_runs, queue_empty=True)
    runner.messages += runner.database.transact(sweep.due_batches, queue_empty=True)
    each_run(runner.database, sweep.unclosed_runs, close)


def step_of(runner: SourceRunner, message: Message) -> object:
    """What a message is for: a batch, or the slice from where the run stands."""
    if isinstance(message, BatchMessage):
        return message.batch_id
    assert isinstance(message, ExtractMessage)
    return runner.sql("SELECT position::text FROM etl_runs WHERE run_id = :run_id", run_id=message.run_id)[0]


def work_off(runner: SourceRunner, run_id: UUID, monkeypatch: pytest.MonkeyPatch, commits: int) -> int:
    """Do a run whose every step is killed once; how many were."""
    killed = set[object]()
    for _ in range(MANY):
        if runner.show(run_id)["status"] not in {"queued", "running"}:
            return len(killed)
        if not runner.messages:
            sweep_up(runner)
            continue
        message = runner.messages.pop(0)
        step = step_of(runner, message)
        if step in killed:
            runner.step(message)
        elif dies_of(monkeypatch, commits, partial(runner.step, message)):
            killed.add(step)
            sweep_up(runner)
    raise AssertionError(f"the run does not end: {runner.show(run_id)}")


@each_service
@pytest.mark.parametrize("commits", [1, 2, 3])
def test_a_source_that_is_killed_at_every_step_loads_the_same(
    runner: SourceRunner, service: Service, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    runner.settings = replace(runner.settings, batch_size=1)
    runner.slice_seconds = 0.0
    run_id = runner.queue(service.document["name"])
    killed = work_off(runner, run_id, monkeypatch, commits)
    assert killed >= len(service.expected)
    run = runner.show(run_id)
    assert (run["status"], run["error"]) == ("success", None)
    assert run["records_inserted"] == len(service.expected)
    check_items(runner, service)
    check_requests(service)
    ask_again(runner, service)


def test_each_source_of_the_cookbook_is_recorded() -> None:
    assert len(SOURCES) == len(EXAMPLES) == 6
    assert {path.stem for path in RECORDED.glob("*.json")} == SOURCES.keys()
    # Each of them has a heading, and the list at the top leads there.
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert len(headings) == len(SOURCES)
    links = re.findall(r"\(#([\w-]+)\)", TEXT.partition("\n## ")[0])
    assert links == [re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings]


def test_the_sources_of_the_cookbook_can_stand_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text("sources:\n" + "".join("  - " + text.replace("\n", "\n    ").rstrip(" ") for text in EXAMPLES))
    assert [one.source.name for one in load_catalog(path, "30m", lambda name: name)] == list(SOURCES)
