"""A service with planted trouble, for whoever looks at its pages: `python -m testkit.stage` plants it and waits.

Of everything that a page can show there is one: a late source, an open breaker, open cases, a failed run, a running one,
and a source that is set aside.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.service import PYTHON, Service, make_database, running_servers, wait_until

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
# A browser that does nothing beside what it is asked for; as root it runs without a sandbox or not at all.
QUIET = (
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-gpu",
        "--no-first-run",
    ),
    *(() if os.geteuid() else ("--no-sandbox",)),
)
KEY = "stage-" + "k" * 26
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def items(number: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": n, "name": f"Thing {n}", "price": f"{n}.50", "category": ("tools", "books", "toys")[n % 3]}
        for n in range(start, start + number)
    ]


def sources(server: FakeServer) -> list[dict[str, Any]]:
    """What is declared, each with a trouble of its own."""
    api = {"type": "api", "records": "@", "timeout": "20s"}
    good = server.json("/good", items(40))
    bad = server.json("/mixed", [*items(30), *({"id": f"x{n}", "name": "bad", "price": "much"} for n in range(12))])
    markup = server.json("/markup", [{"id": 1, "name": MARKUP, "description": MARKUP, "note": MARKUP}])
    down = server.on("/down", Response(status=503, headers={"X-Note": MARKUP}))
    gone = server.on("/wrong", Response(status=404, body=MARKUP.encode()))
    server.on("/slow", slow_page)
    return [
        {"name": "shop", **api, "tags": ["money"], "request": {"url": good}},
        {
            "name": "mixed",
            **api,
            "tags": ["money"],
            "request": {"url": bad},
            "map": {"external_id": "id", "title": "name", "amount": "price"},
        },
        {"name": "markup", **api, "request": {"url": markup}},
        {"name": "down", **api, "request": {"url": down.replace("127.0.0.1", "localhost")}},
        {"name": "wrong", **api, "request": {"url": gone}},
        {
            "name": "slow",
            **api,
            "request": {"url": server.url + "/slow"},
            "paginate": {"style": "page", "param": "page", "max_pages": 500},
        },
        {"name": "late", **api, "request": {"url": good}, "expect_every": "1h"},
        {"name": "aside", **api, "request": {"url": good}},
        {"name": "paused", **api, "request": {"url": good}},
        {
            "name": "never",
            "type": "csv",
            "file": "never.csv",
            "schedule": {"cron": "0 6 * * 1", "timezone": "Europe/Berlin"},
        },
    ]


def slow_page(asked: Request) -> Response:
    time.sleep(0.7)
    return as_json(items(3, 3 * int(asked.query.get("page", "1"))))


def plant(service: Service, server: FakeServer) -> None:
    """Start it, let everything happen, and plant what takes too long to come about."""
    service.environment |= {
        "API_KEYS": KEY,
        "ALLOWED_PRIVATE_HOSTS": "127.0.0.1 localhost",
        "MAX_RETRIES": "0",
        "BREAKER_THRESHOLD": "2",
        "BREAKER_RESET": "10m",
    }
    done = service.declare(json.dumps({"sources": sources(server)}))
    assert done.returncode == 0, done.stderr
    service.start_web()
    service.start_worker()
    for _ in range(3):
        for name in ("shop", "mixed", "markup", "down", "wrong", "late"):
            answer = service.post("/runs", {"source": name})
            if answer.status_code == 202:
                service.await_end(answer.json()["runs"][0]["run_id"])
    wait_until(lambda: service.sql("SELECT count(*) FROM etl_runs WHERE NOT rolled_up")[0] == 0)
    service.sql(
        "UPDATE sources SET late_after = 3600, late_since = now() - interval '3 h', updated_at = now() - interval '5 h' WHERE name = 'late'"
    )
    service.sql("UPDATE etl_checkpoints SET last_read_at = now() - interval '4 h' WHERE source_name = 'late'")
    service.sql("""
        UPDATE sources SET not_before = now() + interval '50 minutes', not_before_reason = 'set_aside', deaths = 3,
            death_cause = 'it needed more than 512 MiB' WHERE name = 'aside'""")
    service.post("/sources/paused/pause", {}, KEY)
    service.post("/runs", {"source": "slow"})
    wait_until(lambda: bool(service.sql("SELECT 1 FROM alert_outbox")), 60)


def link(service: Service, role: str = "admin") -> str:
    """An address that signs a browser in."""
    return service.command(PYTHON, "-m", "web", "login", "--role", role).stdout.strip()


def main() -> None:
    with running_servers("kasparro-stage-") as (servers, folder), FakeServer() as server:
        (folder / "service").mkdir()
        service = Service(servers, make_database(servers, "stage", template="migrated"), folder / "service")
        try:
            plant(service, server)
            print(json.dumps({"url": service.url, "key": KEY, "link": link(service)}), flush=True)
            while True:
                time.sleep(5)
        finally:
            service.stop_all()


if __name__ == "__main__":
    main()
