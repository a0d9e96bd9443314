"""Breakers and budgets in a real Redis, shared by real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from broker import host_states as hosts
from broker.host_states import HostStatesWithFallback, RedisHostStates
from broker.messaging import make_producer
from etl.hosts.breaker import BreakerPolicy, State
from etl.hosts.limiter import HostLimiter, HostState, LocalHostStates
from testkit.fake_server import FakeServer, Response
from testkit.service import Servers

POLICY = BreakerPolicy(threshold=5, reset=1)


@pytest.fixture
def store(servers: Servers) -> Iterator[RedisHostStates]:
    app = make_producer()
    app.conf.broker_url = servers.valkey.url
    store = RedisHostStates(app)
    for host in store.all():
        store.update(host, lambda _, __: (HostState(), None))
    yield store
    app.close()


def gates(store: RedisHostStates, count: int) -> list[HostLimiter]:
    return [HostLimiter(store, POLICY, f"worker{number}") for number in range(count)]


def test_failures_of_all_workers_count_together(store: RedisHostStates) -> None:
    workers = gates(store, 5)
    for worker in workers:
        assert worker.admit("h", 0, 10).allowed
        worker.failed("h", "down")
    admission = workers[0].admit("h", 0, 10)
    assert not admission.allowed
    assert admission.broken
    assert 0.9 < admission.wait < 1.06
    assert workers[0].admit("other", 0, 10).allowed


def test_threads_that_meet_lose_no_failure(store: RedisHostStates) -> None:
    policy = BreakerPolicy(threshold=200, reset=1)

    def fail() -> None:
        for _ in range(25):
            HostLimiter(store, policy, "w").failed("h", "down")

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state, now = store.all()["h"]
    assert state.circuit.failures == 200
    assert state.circuit.state(now) is State.OPEN


def test_a_reset_closes_it_and_ends_the_pause(store: RedisHostStates) -> None:
    (worker,) = gates(store, 1)
    for _ in range(5):
        worker.failed("h", "down")
    worker.pause("h", 60, "busy")
    assert not worker.admit("h", 0, 10).allowed
    assert store.reset("h") is not None
    assert worker.admit("h", 0, 10).allowed
    assert store.reset("unknown") is None


def test_what_nobody_remembers_takes_no_room(store: RedisHostStates) -> None:
    (worker,) = gates(store, 1)
    worker.succeeded("h", worker.admit("h", 0, 10))
    worker.failed("h", "down")
    worker.succeeded("h", worker.admit("h", 0, 10))
    assert store.all() == {}


def test_a_success_goes_to_redis_only_after_a_failure(store: RedisHostStates) -> None:
    (worker,) = gates(store, 1)
    before = worker.admit("h", 0, 10)
    worker.failed("h", "down")
    worker.succeeded("h", before)
    assert store.all()["h"][0].circuit.failures == 1
    worker.succeeded("h", worker.admit("h", 0, 10))
    assert store.all() == {}


def test_junk_in_redis_is_forgotten(store: RedisHostStates) -> None:
    store._guarded(lambda redis: redis.set(hosts.PREFIX + "h", "junk"))
    assert gates(store, 1)[0].admit("h", 0, 10).allowed


def test_without_redis_a_process_goes_by_what_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_producer()
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    worker = HostLimiter(HostStatesWithFallback(RedisHostStates(app)), POLICY, "w")
    started = time.monotonic()
    for _ in range(5):
        assert worker.admit("h", 0, 10).allowed
        worker.failed("h", "down")
    assert not worker.admit("h", 0, 10).allowed
    # Redis is not asked each time.
    assert time.monotonic() - started < 5


def test_redis_is_used_again_when_it_is_back(store: RedisHostStates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "AWAY_SECONDS", 0.0)
    url = store._app.conf.broker_url
    store._app.conf.broker_url = "redis://127.0.0.1:1/0"
    lost = RedisHostStates(store._app)
    worker = HostLimiter(HostStatesWithFallback(lost), POLICY, "w")
    worker.failed("h", "down")
    app = make_producer()
    app.conf.broker_url = url
    lost._app = app
    worker.failed("h", "down")
    assert store.all()["h"][0].circuit.failures == 1
    app.close()


WORKER = """
import sys, time
from etl.hosts.breaker import BreakerPolicy
from etl.errors import ETLError
from etl.hosts.limiter import HostLimiter
from etl.http.call import Policy
from etl.http.client import HttpClient
from etl.http.target import PreparedRequest
from broker.host_states import RedisHostStates, HostStatesWithFallback
from testkit.reading import Recorder
url, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
limiter = HostLimiter(HostStatesWithFallback(RedisHostStates()), BreakerPolicy(5, 1), name)
ends = time.monotonic() + seconds
while time.monotonic() < ends:
    client = HttpClient(Policy(0, ("127.0.0.1",), ends), limiter, Recorder())
    try:
        client.get(PreparedRequest(url, url), 2.0)
    except ETLError:
        time.sleep(0.02)
"""


def test_eight_workers_send_a_dead_host_one_probe_at_a_time(store: RedisHostStates, fake_server: FakeServer) -> None:
    arrivals: list[float] = []

    def answer(_: object) -> Response:
        arrivals.append(time.monotonic())
        return Response(status=503)

    url = fake_server.on("/a", answer)
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, url, f"w{number}", "9"]) for number in range(8)]
    assert [worker.wait(60) for worker in workers] == [0] * 8
    assert 5 <= len(arrivals) <= 5 + 7 + 4
    # After the first burst: waits of 1, 2 and 4 seconds, one request each, however many workers there are.
    burst = [moment for moment in arrivals if moment - arrivals[0] < 0.8]
    probes = [moment for moment in arrivals if moment - arrivals[0] >= 0.8]
    assert len(burst) <= 12
    assert 2 <= len(probes) <= 4
    gaps = [later - earlier for earlier, later in zip(probes, probes[1:], strict=False)]
    assert all(gap > 1.8 for gap in gaps)


def test_a_local_store_is_safe_for_threads() -> None:
    store = LocalHostStates()
    limiter = HostLimiter(store, BreakerPolicy(1000, 1), "w")

    def fail() -> None:
        for _ in range(100):
            limiter.failed("h", "x")

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.update("h", lambda state, _: (state, state.circuit.failures)) == 400
