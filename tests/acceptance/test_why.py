"""Why a source is late: each cause brought about by real processes, hosts and clocks, and named first."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import psutil
import pytest
import requests

from testkit.fake_server import FakeServer, Handler, Request, Response, as_json
from testkit.service import Servers, Service, make_database, wait_until

KEY = "of-the-tests-of-why"  # pragma: allowlist secret
SETTINGS = {"API_KEYS": KEY, "ENABLE_SCHEDULER": "true", "MAX_RETRIES": "2", "BREAKER_THRESHOLD": "1"}
SECONDLY, HOURLY = {"every": "2s"}, {"every": "1h"}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def processes(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One set of processes: two of the pool, of which slow sources may have one."""
    made = Service(servers, make_database(servers, "why", template="migrated"), tmp_path_factory.mktemp("why"))
    made.environment |= SETTINGS
    made.flush_broker()
    try:
        made.start_web()
        made.start_worker()
        _start_beat(made)
        wait_until(lambda: "ready" in made.log("worker"))
        yield made
    finally:
        made.stop_all()


@pytest.fixture
def shop(processes: Service) -> Iterator[Service]:
    """The processes, all of them at work, without any source."""
    if not processes.has("worker"):
        processes.start_worker()
    if not processes.has("beat"):
        _start_beat(processes)
    yield processes
    for name in processes.sql("SELECT name FROM sources"):
        _ask(processes, "DELETE", f"/sources/{name}")


class Pages:
    """A host that is never slow; its list has no end while `endless` is set."""

    def __init__(self) -> None:
        self.endless = threading.Event()

    def __call__(self, request: Request) -> Response:
        page = int(request.query["page"])
        if page > 1:
            time.sleep(0.4)
        return as_json([{"id": page}] if page == 1 or self.endless.is_set() else [])


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages()
    yield made
    made.endless.clear()


@pytest.fixture
def silence() -> Iterator[Handler]:
    """A host that takes requests, and does not answer before the test is over."""
    over = threading.Event()

    def answer(_: Request) -> Response:
        over.wait(60)
        return as_json([])

    yield answer
    over.set()


@pytest.fixture
def elsewhere() -> Iterator[FakeServer]:
    """A second host."""
    with FakeServer() as server:
        yield server


def _start_beat(service: Service) -> None:
    service.start("beat", "celery", "-A", "worker", "beat", "--pidfile=")


def _ask(service: Service, method: str, path: str, body: object = None) -> requests.Response:
    headers = {"X-API-Key": KEY} | ({"If-Match": "*"} if method in {"PATCH", "DELETE"} else {})
    answer = requests.request(method, service.url + path, json=body, headers=headers, timeout=10)
    assert answer.ok, answer.text
    return answer


def _declare(service: Service, url: str, schedule: dict[str, str], **more: Any) -> str:
    """A source of the API; its name is its own, since a deleted one leaves its name."""
    name = f"source_{next(NUMBERS)}"
    document = {"type": "api", "request": {"url": url}, "schedule": schedule, **more}
    _ask(service, "PUT", f"/sources/{name}", document)
    return name


def _declare_known(service: Service, url: str, schedule: dict[str, str], **more: Any) -> str:
    """One that has answered in time before: until then it is taken for slow."""
    name = _declare(service, url, schedule, **more)
    wait_until(lambda: _succeeded(service, name, by_hand=schedule is HOURLY))
    return name


def _succeeded(service: Service, name: str, *, by_hand: bool) -> bool:
    runs = _runs(service, name)
    if by_hand and not runs:
        service.run(name)
    return any(run["status"] == "success" for run in runs)


def _runs(service: Service, name: str) -> list[dict[str, Any]]:
    """The newest first."""
    return list(service.get(f"/runs?source_name={name}")["runs"])


def _run_to_its_end(service: Service, name: str) -> str:
    return str(service.await_end(service.run(name))["status"])


def _why(service: Service, name: str) -> dict[str, Any]:
    found = service.get(f"/sources/{name}/why")
    assert set(found) >= {"on_time", "reasons"}, found
    return found


def _await_cause(service: Service, name: str, code: str, seconds: float = 20) -> dict[str, Any]:
    """Poll until this cause is named first; the whole entry."""
    reasons = _await_first(service, name, code, seconds)
    for reason in reasons:
        _check(reason)
    return reasons[0]


def _await_first(service: Service, name: str, code: str, seconds: float = 20) -> list[dict[str, Any]]:
    deadline = time.monotonic() + seconds
    while not (reasons := list(_why(service, name)["reasons"])) or reasons[0]["code"] != code:
        assert time.monotonic() < deadline, f"{code} was not named first, but {reasons}"
        time.sleep(0.1)
    return reasons


def _check(reason: dict[str, Any]) -> None:
    assert reason["message"].strip(), reason
    assert reason["action"].strip(), reason
    assert reason["since"], f"it does not say since when: {reason}"
    assert _moment(reason["since"]) <= datetime.now(UTC), reason
    if reason["until"]:
        _moment(reason["until"])


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    assert found.tzinfo, f"{text} names no zone"
    return found


def _ends_in(reason: dict[str, Any], least: float, most: float) -> bool:
    """Whether it says that it ends so many seconds from now."""
    return least < (_moment(reason["until"]) - datetime.now(UTC)).total_seconds() <= most


def test_one_that_is_read_at_every_slot_has_no_reasons(shop: Service, fake_server: FakeServer) -> None:
    name = _declare_known(shop, fake_server.json("/a", [{"id": 1}]), {"every": "5s"})
    end = time.monotonic() + 7
    while time.monotonic() < end:
        assert (found := _why(shop, name))["reasons"] == [], found
        assert found["on_time"] is True
        time.sleep(0.2)
    assert len(fake_server.asked) >= 2, "it was read meanwhile"


def test_a_rate_that_holds_up_nothing_is_no_reason(shop: Service, fake_server: FakeServer) -> None:
    url = fake_server.json("/a", [{"id": 1}])
    name = _declare_known(shop, url, HOURLY, rate="1/m")
    assert (found := _why(shop, name))["reasons"] == [], found
    assert found["on_time"] is True


def test_a_pause_that_ends_before_the_next_slot_is_no_reason(shop: Service, fake_server: FakeServer) -> None:
    """Two sources of a host: only that one is kept from being read which is due while the host wants its peace."""
    well = _declare_known(shop, fake_server.json("/a", [{"id": 1}]), HOURLY)
    refused = fake_server.on("/b", Response(status=429, headers={"Retry-After": "60"}))
    asked = _declare(shop, refused, SECONDLY)
    _await_first(shop, asked, "server_asked_to_wait")
    assert (found := _why(shop, well))["reasons"] == [], found


def test_disabled(shop: Service, fake_server: FakeServer) -> None:
    name = _declare(shop, fake_server.url + "/nothing", HOURLY)
    assert _run_to_its_end(shop, name) == "failed"
    _ask(shop, "PATCH", f"/sources/{name}", {"enabled": False})
    _await_cause(shop, name, "disabled_or_paused")


def test_paused(shop: Service, fake_server: FakeServer) -> None:
    name = _declare(shop, fake_server.url + "/nothing", HOURLY)
    assert _run_to_its_end(shop, name) == "failed"
    until = datetime.now(UTC) + timedelta(hours=2)
    _ask(shop, "POST", f"/sources/{name}/pause", {"until": until.isoformat()})
    assert _moment(_await_cause(shop, name, "disabled_or_paused")["until"]) == until
    _ask(shop, "POST", f"/sources/{name}/resume", {})
    _await_cause(shop, name, "last_run_failed")


def test_set_aside(shop: Service, fake_server: FakeServer) -> None:
    def kill_who_asks(handler: BaseHTTPRequestHandler) -> None:
        for process in psutil.Process(shop.process_id("worker")).children(recursive=True):
            if handler.client_address[1] in [link.laddr.port for link in process.net_connections("tcp")]:
                process.kill()

    name = _declare(shop, fake_server.on("/a", Response(raw=kill_who_asks)), SECONDLY)
    assert _ends_in(_await_cause(shop, name, "set_aside", 40), 3500, 3600)
    assert len(fake_server.asked) == 3


@pytest.mark.parametrize("seconds", [600, 3600])
def test_server_asked_to_wait(shop: Service, fake_server: FakeServer, seconds: int) -> None:
    """A run that waits for it, and slots that are left out; also of a source that was never turned away itself."""
    other = _declare_known(shop, fake_server.json("/b", [{"id": 1}]), SECONDLY)
    refused = fake_server.on("/a", Response(status=429, headers={"Retry-After": str(seconds)}))
    name = _declare(shop, refused, SECONDLY)
    for asked in (name, other):
        assert _ends_in(_await_cause(shop, asked, "server_asked_to_wait"), seconds - 30, seconds)


def test_an_answer_that_stays_fresh_is_not_asked_for_again(shop: Service, fake_server: FakeServer) -> None:
    answer = as_json([{"id": 1}])
    answer.headers["Cache-Control"] = "max-age=3600"
    name = _declare(shop, fake_server.on("/a", answer), SECONDLY)
    assert _ends_in(_await_cause(shop, name, "server_asked_to_wait"), 3500, 3602)


def test_breaker_open(shop: Service, fake_server: FakeServer) -> None:
    name = _declare(shop, fake_server.on("/a", Response(status=500)), SECONDLY)
    assert _ends_in(_await_cause(shop, name, "breaker_open", 30), 40, 66)
    host = f"127.0.0.1:{fake_server.port}"
    fake_server.json("/a", [{"id": 1}])
    _ask(shop, "POST", f"/breakers/{host}/reset", {})
    wait_until(lambda: _why(shop, name)["reasons"] == [])


def test_over_budget(shop: Service, fake_server: FakeServer) -> None:
    name = _declare(shop, fake_server.json("/a", [{"id": 1}]), SECONDLY, rate="1/m")
    wait_until(lambda: "waiting" in [run["stage"] for run in _runs(shop, name)])
    assert _ends_in(_await_cause(shop, name, "over_budget"), 20, 60)
    assert len(fake_server.asked) == 1


def test_a_run_that_outlasts_its_slots(shop: Service, fake_server: FakeServer, pages: Pages) -> None:
    pages.endless.set()
    url = fake_server.on("/a", pages)
    name = _declare(shop, url, SECONDLY, paginate={"style": "page", "param": "page", "max_pages": 1000})
    _await_cause(shop, name, "run_active")
    pages.endless.clear()
    wait_until(lambda: _why(shop, name)["reasons"] == [])


def test_a_run_that_waits_for_its_next_try(shop: Service, fake_server: FakeServer) -> None:
    name = _declare(shop, fake_server.on("/a", [Response(status=500), as_json([{"id": 1}])]), HOURLY)
    run_id = shop.run(name)
    assert "500" in _await_cause(shop, name, "run_active")["message"]
    assert shop.await_end(run_id)["status"] == "success"
    assert _why(shop, name)["reasons"] == []


def test_slow_share(shop: Service, fake_server: FakeServer, elsewhere: FakeServer, silence: Handler) -> None:
    """The first one gets more patience with each try: at the third it holds the only place for 16 s."""
    first = _declare(shop, fake_server.on("/a", silence), HOURLY)
    second = _declare(shop, elsewhere.on("/b", silence), HOURLY)
    shop.run(first)
    wait_until(lambda: len(fake_server.asked) == 3)
    shop.run(second)
    _await_cause(shop, second, "slow_share", 5)
    assert not elsewhere.asked


def test_waiting_in_queue(shop: Service, fake_server: FakeServer, pages: Pages) -> None:
    paged = {"paginate": {"style": "page", "param": "page", "max_pages": 1000}}
    names = [_declare_known(shop, fake_server.on(f"/{n}", pages), HOURLY, **paged) for n in range(4)]
    pages.endless.set()
    first = [shop.run(name) for name in names[:2]]
    wait_until(lambda: all(shop.get(f"/runs/{run_id}")["stage"] == "extracting" for run_id in first))
    rest = [shop.run(name) for name in names[2:]]
    for before, name in enumerate(names[2:]):
        assert f"{before} before it" in _await_cause(shop, name, "waiting_in_queue")["message"]
    pages.endless.clear()
    assert [shop.await_end(run_id)["status"] for run_id in rest] == ["success"] * 2


def test_gone(shop: Service, fake_server: FakeServer) -> None:
    name = _declare(shop, fake_server.on("/a", Response(status=410)), HOURLY)
    assert _run_to_its_end(shop, name) == "failed"
    _await_cause(shop, name, "gone")


def test_last_run_failed(shop: Service, fake_server: FakeServer) -> None:
    name = _declare(shop, fake_server.on("/a", Response(status=404)), HOURLY)
    assert _run_to_its_end(shop, name) == "failed"
    assert "404" in _await_cause(shop, name, "last_run_failed")["message"]
    assert _why(shop, name)["on_time"] is True
    fake_server.json("/a", [{"id": 1}])
    assert _run_to_its_end(shop, name) == "success"
    assert _why(shop, name)["reasons"] == []


def test_slot_missed(shop: Service, fake_server: FakeServer) -> None:
    name = _declare_known(shop, fake_server.json("/a", [{"id": 1}]), {"every": "3s"})
    os.killpg(shop.process_id("beat"), signal.SIGSTOP)
    time.sleep(7)
    os.killpg(shop.process_id("beat"), signal.SIGCONT)
    _await_cause(shop, name, "slot_missed")
    wait_until(lambda: _why(shop, name)["reasons"] == [])


@pytest.fixture(scope="module")
def outage(processes: Service) -> Iterator[dict[str, str]]:
    """Scheduler and workers are killed at once, so that one wait serves both; the sources by what they are."""
    with FakeServer() as server:
        url = server.json("/a", [{"id": 1}])
        names = {kind: _declare_known(processes, url, HOURLY) for kind in ("well", "asked")}
        names["due"] = _declare_known(processes, url, SECONDLY)
        processes.kill("beat")
        wait_until(lambda: _runs(processes, names["due"])[0]["completed_at"] is not None)
        processes.kill("worker")
        processes.run(names["asked"])
        yield names


def test_scheduler_silent(processes: Service, outage: dict[str, str]) -> None:
    _await_cause(processes, outage["due"], "scheduler_silent")
    assert _why(processes, outage["due"])["on_time"] is False


@pytest.fixture
def unscheduled(processes: Service, outage: dict[str, str]) -> Iterator[str]:
    """A source that is due in a service whose scheduler is turned off."""
    _restart_web(processes, "false")
    _start_beat(processes)
    yield outage["due"]
    processes.kill("beat")
    _restart_web(processes, "true")


def _restart_web(service: Service, scheduling: str) -> None:
    service.kill("web")
    service.environment["ENABLE_SCHEDULER"] = scheduling
    service.start_web()


def test_no_schedule(processes: Service, unscheduled: str) -> None:
    _await_cause(processes, unscheduled, "no_schedule")


def test_no_worker(processes: Service, outage: dict[str, str]) -> None:
    """A worker counts for 30 s after it was seen last."""
    _await_cause(processes, outage["asked"], "no_worker", 40)
    assert _why(processes, outage["asked"])["on_time"] is False


def test_what_is_not_due_is_well_though_nobody_works(processes: Service, outage: dict[str, str]) -> None:
    found = _why(processes, outage["well"])
    assert (found["on_time"], found["reasons"]) == (True, [])
