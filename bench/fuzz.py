"""The HTTP interface asked with everything that its own description allows, and with much that it does not.

Schemathesis makes the questions; a web process and a worker answer over a database with items, runs and rejects. No answer
may be a failure of the server, and none may have a status, a type, a header or a shape that is not described.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

from config.settings import PROJECT
from etl.access.roles import Role
from testkit.service import Service, make_database, running_servers

SCHEMATHESIS = PROJECT / ".venv" / "fuzz" / "bin" / "schemathesis"
KEY = "the-key-of-a-caller-who-may-do-everything"
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance"),
)
SOURCES = """\
sources:
  - {name: shop, type: csv, file: shop.csv}
  - {name: gone, type: csv, file: none.csv}
  - {name: far, type: api, request: {url: "http://far.test/items"}}
  - {name: resting, type: csv, file: shop.csv, enabled: false}
"""
MOST_EXAMPLES = 300
MOST_ROUNDS = 20
MOST_SECONDS = 1800


def main() -> int:
    """0 if every answer was as described."""
    parser = argparse.ArgumentParser(prog="make test-api", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="at least so many by each role")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with running_servers("kasparro-fuzz-") as (servers, folder):
        service = Service(servers, make_database(servers, "fuzz", template="migrated"), folder)
        try:
            _fill(service)
            # Whoever may do everything comes last: little is left as it was.
            keys = [(role, _new_key(service, role)) for role in Role if role is not Role.ADMIN]
            asked = [_ask(service, role, key, arguments) for role, key in (*keys, (Role.ADMIN, KEY))]
            return max(asked)
        finally:
            service.stop_all()


def _fill(service: Service) -> None:
    rows = (f"{n},thing {n},{'dear' if n % 50 == 0 else n % 7},2026-01-{n % 28 + 1:02}" for n in range(300))
    (service.folder / "shop.csv").write_text("id,name,price,date\n" + "\n".join(rows) + "\n")
    service.environment["API_KEYS"] = KEY
    declared = service.declare(SOURCES)
    assert declared.returncode == 0, declared.stderr
    service.start_web()
    service.start_worker()
    for name in ("shop", "gone", "far", "shop"):
        service.await_end(service.run(name))


def _new_key(service: Service, role: Role) -> str:
    answer = service.post("/keys", {"name": f"asks as {role}", "role": role}, KEY)
    answer.raise_for_status()
    key: str = answer.json()["key"]
    return key


def _ask(service: Service, role: Role, key: str, arguments: argparse.Namespace) -> int:
    """Ask in rounds: operations without parameters have few cases each."""
    cases, seed = arguments.cases, arguments.seed
    operations = sum(len(path) for path in service.get("/openapi.json")["paths"].values())
    asked = 0
    for number in range(seed, seed + MOST_ROUNDS):
        done = subprocess.run(
            _command(service.url, key, max(1, min(cases // operations, MOST_EXAMPLES)), number),
            cwd=service.folder,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
        asked += sum(map(int, re.findall(r"(\d+) generated", done.stdout)))
        if done.returncode or asked >= cases:
            break
    print(done.stdout[-20_000:], done.stderr[-5_000:], sep="\n")
    print(f"{role}: {asked} cases, the last of seed {number}")
    return done.returncode or int(asked < cases)


def _command(url: str, key: str, most: int, seed: int) -> list[str]:
    return [
        *(str(SCHEMATHESIS), "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing,stateful"),
        *("--max-examples", str(most), "--seed", str(seed), "--continue-on-failure", "--no-color"),
        *("--generation-database", "none", "--request-timeout", "15", "--suppress-health-check", "all"),
    ]


if __name__ == "__main__":
    sys.exit(main())
