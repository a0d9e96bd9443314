"""Secrets are planted wherever one may stand, servers say them back in every way, and nobody gets to see any.

What is searched is all that real processes leave behind and answer: logs and other files, arguments, tables, Redis,
the API, commands and Flower. A harmless mark that has to be found in each of them shows that the search can find.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import psutil
import psycopg2
import pytest
import requests

from config.settings import PROJECT
from etl.runs.outcome import ENDED
from stack import ports
from testkit.fake_server import FakeServer, Request, Response
from testkit.service import PYTHON, Servers, Service, make_database, wait_until
from tests.acceptance.planted import (
    BY_PUT,
    IN_FILE,
    ISSUED,
    LITERAL,
    NUMBER,
    ODD,
    OF_SERVICE,
    OF_SOURCES,
    REPEATED,
    STORED,
    WAYS,
    WRITTEN,
    Secret,
    found,
    refusal,
    said,
)

# The service.


@dataclass
class Caller:
    """Calls the service as an admin, and keeps every answer."""

    url: str
    answers: list[tuple[str, str]] = field(default_factory=list)

    def call(self, method: str, path: str, wanted: int | None = 200, **more: Any) -> requests.Response:
        headers = {"X-API-Key": OF_SERVICE["API_KEYS"].value} | more.pop("headers", {})
        answer = requests.request(method, self.url + path, headers=headers, timeout=60, **more)
        self.answers.append((f"answers: {method} {path}", f"{dict(answer.headers)}\n{answer.text}"))
        assert wanted in {None, answer.status_code}, (method, path, answer.text)
        return answer

    def get(self, path: str) -> Any:
        return self.call("GET", path).json()

    def new_key(self, path: str, given: dict[str, Any]) -> tuple[int, Secret]:
        """A key that was made: its answer alone shows it, once."""
        made = self.call("POST", path, 201, json=given).json()
        place, text = self.answers.pop()
        assert text.count(made["key"]) == 1
        self.answers.append((place, text.replace(made["key"], "")))
        return made["key_id"], Secret(f"the key of {path}", made["key"].removeprefix(made["prefix"] + "_"))


@dataclass
class Seen:
    """What was planted, and all that could be seen afterwards: places, each with its text."""

    secrets: list[Secret] = field(repr=False)
    places: list[tuple[str, str]] = field(repr=False)
    # What the outside world was sent.
    sent: str = field(repr=False)
    # What has to stand there, by the kind of place.
    marks: dict[str, str]
    # Where a credential was written into a source that was taken.
    taken: list[str]

    def of(self, kind: str) -> list[tuple[str, str]]:
        return [(place, text) for place, text in self.places if place.startswith(f"{kind}: ")]


SHOWING = ("alerts", "answers", "commands", "files", "flower", "tables")
MARKS = dict.fromkeys(SHOWING, "planted_basic") | {"arguments": "celery"}
KINDS = (*MARKS, "redis")


@pytest.fixture(scope="module")
def seen(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("secrets")
    service = Service(servers, make_database(servers, "secrets", template="migrated"), folder)
    service.flush_broker()
    with ExitStack() as stack:
        stack.callback(service.stop_all)
        outside = {name: stack.enter_context(FakeServer()) for name in WAYS}
        plant(service, servers, outside["address"])
        yield look(service, servers, outside)


def plant(service: Service, servers: Servers, server: FakeServer) -> None:
    """Hand every secret to the service in the way in which it is meant to get it."""
    service.environment |= {f"PLANTED_{name.upper()}": OF_SOURCES[name].value for name in WAYS if name not in WRITTEN}
    file = service.folder / "kept.secret"
    file.write_text(service.environment.pop("PLANTED_KEPT") + "\n")
    service.environment |= {
        "PLANTED_ADDRESS": feed(server, quote(OF_SOURCES["address"].value, safe="")),
        "PLANTED_KEPT_FILE": str(file),
        "DATABASE_URL": role(service.database_url, OF_SERVICE["DATABASE_URL"]),
        "WEB_DATABASE_URL": role(service.database_url, OF_SERVICE["WEB_DATABASE_URL"]),
        "REDIS_URL": broker_user(service, servers.valkey.url, OF_SERVICE["REDIS_URL"]),
        "API_KEYS": OF_SERVICE["API_KEYS"].value,
        "FLOWER_BASIC_AUTH": f"somebody:{OF_SERVICE['FLOWER_BASIC_AUTH'].value}",
        "ALERT_URLS": " ".join(sinks(server)),
        "ALERT_SCHEMES": "json",
        "ALERT_SECRET": OF_SERVICE["ALERT_SECRET"].value,
        "ALERT_DIGEST": "0s",
        "HEARTBEAT_URL": server.on(f"/{quoted('HEARTBEAT_URL')}/beat", refusal(500)),
        "MAX_RETRIES": "1",
        "BREAKER_THRESHOLD": "1",
        "LOG_LEVEL": "DEBUG",
    }


def feed(server: FakeServer, hidden: str) -> str:
    """An address with a secret in its path, where there is no feed: it says what was asked for, as servers do."""
    return server.on(f"/{hidden}/feed", lambda asked: Response(f"Cannot GET {asked.path}".encode()))


def quoted(name: str) -> str:
    return quote(OF_SERVICE[name].value, safe="")


def sinks(server: FakeServer) -> Iterator[str]:
    """Addresses of alerts with a secret in each, which say all back and refuse the first message."""
    hook = server.on(f"/{quoted('ALERT_URLS')}/hook", lambda asked: took(server, asked))
    people = f"127.0.0.1:{server.port}/people"
    server.on("/people", lambda asked: took(server, asked))
    yield hook
    yield f"json://somebody:{quoted('ALERT_PEOPLE')}@{people}"


def took(server: FakeServer, asked: Request) -> Response:
    before = sum(one.path == asked.path for one in server.asked)
    return refusal(400)(asked) if before == 1 else Response(b"{}")


def alerts(server: FakeServer) -> Iterator[tuple[str, str]]:
    """What was told, as it arrived; where a secret is what opens the address, it is not what was told."""
    for asked in server.asked:
        if asked.path.endswith(("/hook", "/people")):
            told = {name: value for name, value in asked.headers.items() if name != "authorization"}
            yield "alerts: as they arrive", f"{told} {asked.body.decode()}"


def role(url: str, password: Secret) -> str:
    """The address of a database for a role of its own, with this password."""
    name = f"planted_{secrets.token_hex(4)}"
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD %s", [password.value])
    connection.close()
    return re.sub("//[^@]+@", lambda _: f"//{name}:{quote(password.value, safe='')}@", url)


def broker_user(service: Service, url: str, password: Secret) -> str:
    """The address of Redis for a user of its own, with this password."""
    name = f"planted_{secrets.token_hex(4)}"
    rules: dict[str, Any] = {
        "passwords": [f"+{password.value}"],
        "categories": ["+@all"],
        "keys": ["*"],
        "channels": ["*"],
    }
    service.broker().acl_setuser(name, enabled=True, **rules)
    return re.sub("//[^@]+@", lambda _: f"//{name}:{quote(password.value, safe='')}@", url)


def look(service: Service, servers: Servers, outside: dict[str, FakeServer]) -> Seen:
    """Let everything happen, and gather what can be seen."""
    caller = Caller(service.url)
    places = [start(service, {name: document(name, outside[name]) for name in IN_FILE})]
    declare(caller, {name: document(name, outside[name]) for name in WAYS if name not in IN_FILE})
    taken = write_credentials(caller)
    runs, waiting = run_all(service, caller)
    keys = act(caller)
    ask(caller, runs)
    wait_until(lambda: len(list(alerts(outside["address"]))) > 3, 60)
    places += alerts(outside["address"])
    places += [*caller.answers, ("redis: waiting", waiting), *commands(service), *flower(service), *arguments(service)]
    places += [*files(service, servers), *tables(service), *redis(service)]
    planted = [*OF_SOURCES.values(), *OF_SERVICE.values(), *keys, ISSUED, REPEATED, LITERAL, NUMBER]
    sent = " ".join(repr(one) + said(one) for server in outside.values() for one in server.asked)
    host = f"127.0.0.1:{outside['query'].port}"
    return Seen(planted, places, sent, MARKS | {"redis": host}, taken)


def document(name: str, server: FakeServer) -> dict[str, Any]:
    """The declaration of a source; only in the file may a secret stand as it is."""
    named = OF_SOURCES[name].value if name in WRITTEN else f"${{PLANTED_{name.upper()}}}"
    return {"name": f"planted_{name}", "type": "api", **WAYS[name](server, named)}


def start(service: Service, documents: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Declare what stands in the file, and start all but the worker."""
    done = service.declare(json.dumps({"sources": list(documents.values())}))
    assert done.returncode == 0, done.stderr
    port = ports.free_port()
    service.environment["FLOWER_PORT"] = str(port)
    service.start("flower", "celery", "-A", "worker", "flower", "--address=127.0.0.1", f"--port={port}")
    service.start("beat", "celery", "-A", "worker", "beat", "--pidfile=", ENABLE_SCHEDULER="true")
    service.environment["LOG_FORMAT"] = "json"
    service.start_web()
    return "commands: db sources", done.stdout + done.stderr


def declare(caller: Caller, documents: dict[str, dict[str, Any]]) -> None:
    """The other sources over the API, one by one and as a document."""
    for name in BY_PUT:
        caller.call("PUT", f"/sources/planted_{name}", 201, json=documents[name])
    rest = [document for name, document in documents.items() if name not in BY_PUT]
    headers = {"Content-Type": "application/yaml", "Idempotency-Key": "a document"}
    for _ in range(2):
        caller.call("POST", "/sources/apply", data=json.dumps({"sources": rest}), headers=headers)
    caller.call("PATCH", "/sources/planted_query", json={"tags": ["planted"]}, headers={"If-Match": "*"})


def credentials(value: str, number: int) -> dict[str, dict[str, Any]]:
    """Requests with a credential where its name should be."""
    url, quoted = "http://127.0.0.1:9/a", quote(value, safe="")
    oauth2: dict[str, Any] = {
        "kind": "oauth2_client_credentials",
        "client_id": "somebody",
        "client_secret": "${PLANTED_OAUTH}",
    }
    auths: dict[str, dict[str, Any]] = {
        "a bearer token": {"kind": "bearer", "token": value},
        "a password": {"kind": "basic", "username": "somebody", "password": value},
        "a key in a header": {"kind": "header", "name": "X-Key", "value": value},
        "a key in the query": {"kind": "query", "name": "key", "value": value},
        "a client's secret": oauth2 | {"token_url": url, "client_secret": value},
        "a user in the address of tokens": oauth2 | {"token_url": f"http://somebody:{quoted}@127.0.0.1:9/token"},
        "a token in a list": {"kind": "bearer", "token": [value]},
        "a token beside an unknown key": {"kind": "bearer", "token": value, "tokn": value},
    }
    parts: dict[str, dict[str, Any]] = {
        "a cookie": {"headers": {"Cookie": f"sid={value}"}},
        "a header": {"headers": {"X-Api-Key": value}},
        "a parameter": {"params": {"api_key": value}},
        "a number": {"params": {"api_key": number}},
        "a part of the body": {"body": {"login": [{"password": value}]}},
        "a user": {"url": f"http://{quoted}@127.0.0.1:9/a"},
        "a user with a password": {"url": f"http://somebody:{quoted}@127.0.0.1:9/a"},
        "a token in the address": {"url": f"{url}?access_token={quoted}"},
        "a token in the address beside a name": {"url": f"{url}?access_token={quoted}&key=${{PLANTED_QUERY}}"},
    }
    return {what: {"url": url, "auth": auth} for what, auth in auths.items()} | {
        what: {"url": url, **part} for what, part in parts.items()
    }


def write_credentials(caller: Caller) -> list[str]:
    """Try to declare sources with a credential written into them: those that were taken."""
    patch = {"request": {"auth": {"kind": "bearer", "token": LITERAL.value}}}
    caller.call("PATCH", "/sources/planted_query", 422, json=patch, headers={"If-Match": "*"})
    for kind, text in (("json", '{"sources": [{"token": "%s'), ("yaml", 'token: "%s'), ("yaml", "token: *%s\nb: [")):
        caller.call("POST", "/sources/apply", 422, data=text % LITERAL.value, headers=typed(kind))
    tried = credentials(LITERAL.value, int(NUMBER.value))
    return [what for what, request in tried.items() if is_taken(caller, request)]


def is_taken(caller: Caller, request: dict[str, Any]) -> bool:
    """Whether a source with this request can be declared; it is removed again."""
    wrong = {"name": "wrong", "type": "api", "request": request}
    answers = [caller.call("PUT", "/sources/wrong", None, json=wrong)]
    for kind in ("json", "yaml"):
        sent = json.dumps({"sources": [wrong]})
        answers.append(caller.call("POST", "/sources/apply?dry_run=true", None, data=sent, headers=typed(kind)))
    if answers[0].status_code == 201:
        caller.call("DELETE", "/sources/wrong", headers={"If-Match": "*"})
    return any(answer.status_code != 422 for answer in answers)


def typed(kind: str) -> dict[str, str]:
    return {"Content-Type": f"application/{kind}"}


def run_all(service: Service, caller: Caller) -> tuple[dict[str, str], str]:
    """Run every source: the runs by their sources, and what stood in Redis while nobody took anything from there."""
    headers = {"Idempotency-Key": REPEATED.value}
    asked = [caller.call("POST", "/runs", 202, json={}, headers=headers).json()["runs"] for _ in range(2)]
    caller.call("POST", "/runs", 422, json={"full": True}, headers=headers)
    runs = {run["source_name"]: run["run_id"] for run in asked[1]}
    assert runs.keys() == {f"planted_{name}" for name in WAYS}
    waiting = " ".join(text for _, text in redis(service))
    assert any(run in waiting for run in runs.values())
    service.start_worker(LOG_FORMAT="console")
    wait_until(lambda: all(run["status"] in ENDED for run in service.get("/runs?limit=100")["runs"]), 60)
    return runs, waiting


def act(caller: Caller) -> list[Secret]:
    """All other calls that write, or read a source; the keys that were made."""
    for name in ("bearer", "basic", "query", "cookie"):
        caller.call("POST", "/sources/preview", json={"source_name": f"planted_{name}", "records": 3})
    tried = {"name": "tried", "type": "api", "request": credentials(LITERAL.value, 0)["a parameter"]}
    caller.call("POST", "/sources/preview", json={"source": tried})
    caller.call("POST", "/sources/bulk", json={"action": "retry", "filter": {"state": "failing"}, "dry_run": True})
    for verb in ("pause", "resume"):
        caller.call("POST", f"/sources/planted_cookie/{verb}", json={})
    bearer = {"source_name": "planted_bearer"}
    caller.call("POST", "/replays", 202, json=bearer | {"dry_run": True})
    caller.call("POST", "/backfills", 422, json=bearer | {"from": "2026-01-01", "to": "2026-01-02"})
    caller.call("POST", "/quarantine/redrive", 202, json=bearer)
    caller.call("DELETE", "/sources/planted_body?data=true", headers={"If-Match": "*"})
    caller.call("POST", "/alerts/test", 202, json={})
    number, made = caller.new_key("/keys", {"name": "somebody", "role": "read"})
    return [made, caller.new_key(f"/keys/{number}/rotate", {"overlap": 60})[1]]


ALL = (
    *("/health", "/stats", "/data", "/runs?limit=100", "/errors", "/overview", "/system", "/hosts", "/breakers"),
    *("/keys", "/audit?limit=100", "/quarantine", "/quarantine/groups", "/sources", "/sources?format=yaml"),
    *("/alerts", "/metrics", "/data/changes"),
    *("/openapi.json", "/docs", "/redoc", "/health/live", "/health/ready"),
)
OF_A_SOURCE = ("", "/why", "/drift", "/versions", "/mappings")


def ask(caller: Caller, runs: dict[str, str]) -> None:
    """Everything that can be read, and some that cannot."""
    paths = [*ALL, *(f"/runs/{run}{rest}" for run in runs.values() for rest in ("", "/events"))]
    paths += [f"/data/{item['id']}{rest}" for item in caller.get("/data")["items"] for rest in ("", "/lineage")]
    paths += [f"/quarantine/{case['id']}" for case in caller.get("/quarantine")["cases"]]
    paths += [f"/sources/planted_{name}{rest}" for name in WAYS if name != "body" for rest in OF_A_SOURCE]
    for path in paths:
        caller.call("GET", path)
    for kind in ("ndjson", "csv"):
        caller.call("GET", f"/data/export?format={kind}")
    key = OF_SERVICE["API_KEYS"].value
    caller.call("GET", f"/data?api_key={key}", 422)
    caller.call("GET", "/stats", 401, headers={"X-API-Key": key[:-1]})


def commands(service: Service) -> Iterator[tuple[str, str]]:
    for words in ("worker alerts test", "worker preview planted_basic", "worker why planted_basic", "web keys list"):
        done = service.command(PYTHON, "-m", *words.split())
        yield f"commands: {words}", done.stdout + done.stderr


def flower(service: Service) -> Iterator[tuple[str, str]]:
    """Flower's pages, and what they fetch."""
    url = f"http://127.0.0.1:{service.environment['FLOWER_PORT']}"
    login = ("somebody", OF_SERVICE["FLOWER_BASIC_AUTH"].value)
    refused = requests.get(f"{url}/tasks", auth=("somebody", LITERAL.value), timeout=10)
    assert refused.status_code == 401
    yield "flower: refused", f"{dict(refused.headers)}{refused.text}"
    task = next(iter(requests.get(f"{url}/api/tasks", auth=login, timeout=20).json()))
    paths = ("/tasks", "/workers", "/broker", "/metrics", "/worker/worker@test", f"/task/{task}", "/api/tasks")
    for path in (*paths, "/api/workers?refresh=1", "/workers?json=1", "/api/task/types", f"/api/task/info/{task}"):
        answer = requests.get(url + path, auth=login, timeout=20)
        assert answer.status_code == 200, (path, answer.text)
        yield f"flower: {path}", f"{dict(answer.headers)}{answer.text}"


def arguments(service: Service) -> Iterator[tuple[str, str]]:
    """What everybody on the machine can see of the processes."""
    for name in ("web", "worker", "beat", "flower"):
        process = psutil.Process(service.process_id(name))
        yield (
            f"arguments: {name}",
            " ".join(" ".join(p.cmdline()) for p in (process, *process.children(recursive=True))),
        )


def files(service: Service, servers: Servers) -> Iterator[tuple[str, str]]:
    """What the processes and the servers have written; not what was planted there."""
    planted = {service.folder / "sources.yaml", service.folder / "kept.secret"}
    for path in {*service.folder.rglob("*"), *servers.folder.glob("*.log")} - planted:
        if path.is_file():
            yield f"files: {path.name}", path.read_bytes().decode(errors="replace")


def tables(service: Service) -> Iterator[tuple[str, str]]:
    """Each table as text; bytes are hex there."""
    named = service.sql(
        "SELECT format('%I.%I', table_schema, table_name), table_name FROM information_schema.tables "
        "WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    for full_name, name in named:
        yield f"tables: {name}", "\n".join(map(str, service.sql(f"SELECT t::text FROM {full_name} t")))


READERS: dict[str, Callable[[Any, bytes], Any]] = {
    "string": lambda broker, key: broker.get(key),
    "list": lambda broker, key: broker.lrange(key, 0, -1),
    "hash": lambda broker, key: broker.hgetall(key),
    "set": lambda broker, key: broker.smembers(key),
    "zset": lambda broker, key: broker.zrange(key, 0, -1),
    "stream": lambda broker, key: broker.xrange(key),
}


def redis(service: Service) -> Iterator[tuple[str, str]]:
    broker: Any = service.broker()
    for key in broker.scan_iter():
        value = READERS[broker.type(key).decode()](broker, key)
        yield f"redis: {key.decode(errors='replace')}", f"{key!r} {value!r}"


# What must be so.


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_seen(seen: Seen, kind: str) -> None:
    leaks = sorted(set(found(seen.of(kind), seen.secrets)) - STORED)
    assert leaks == [], "\n".join(map(str, leaks))


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_be_seen_is_found(seen: Seen, kind: str) -> None:
    assert seen.marks[kind] in "".join(text for _, text in seen.of(kind))


def test_what_is_stored_as_it_was_written_is_found(seen: Seen) -> None:
    assert set(found(seen.of("tables"), [*(OF_SOURCES[name] for name in WRITTEN), REPEATED])) >= STORED


def test_every_secret_of_a_source_was_sent_and_said_back(seen: Seen) -> None:
    assert [secret.name for secret in (*OF_SOURCES.values(), ISSUED) if not secret.is_in(seen.sent)] == []


def test_a_credential_that_is_written_into_a_source_is_refused(seen: Seen) -> None:
    assert seen.taken == []


@pytest.mark.parametrize("secret", [Secret.make("odd", ODD), Secret.make("plain")])
def test_the_search_knows_a_secret_however_it_is_written(secret: Secret) -> None:
    value = secret.value
    told = [value, quote(value, safe=""), json.dumps(value), f"{value[:9]}…", f"user:{value}".encode().hex()]
    told += [base64.b64encode(f"{before}{value}:x".encode()).decode() for before in ("", "u:", "us:", "user:")]
    places = [(f"place {number}", f"before{text}after") for number, text in enumerate(told)]
    assert found(places, [secret]) == [(place, secret.name) for place, _ in places]
    assert found(places, [Secret.make("another")]) == []


@pytest.mark.parametrize(
    ("setting", "url", "command"),
    [
        ("REDIS_URL", "redis://:{}/{}@127.0.0.1:1/0", "celery -A worker inspect ping"),
        ("DATABASE_URL", "postgresql://somebody:{}/{}@127.0.0.1:1/x", "db migrate"),
        ("DATABASE_URL", "postgresql://somebody:{}@{}@127.0.0.1:1/x", "db migrate"),
    ],
    ids=["REDIS_URL with /", "DATABASE_URL with /", "DATABASE_URL with @"],
)
def test_a_password_that_is_not_quoted_is_not_said_by_what_cannot_read_it(setting: str, url: str, command: str) -> None:
    head, tail = Secret.make("head"), Secret.make("tail")
    environment = {**os.environ, setting: url.format(head.value, tail.value)}
    words = [PYTHON, "-m", *command.split()]
    done = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert found([("output", done.stdout + done.stderr)], [head, tail]) == []
