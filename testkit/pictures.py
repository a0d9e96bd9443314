"""`make pictures`: the pictures of the documentation, from the sample data and from a stage with planted trouble."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from config.settings import PROJECT
from stack import ports
from testkit.fake_server import FakeServer
from testkit.service import Servers, Service, make_database, running_servers, wait_until
from testkit.stage import CHROMIUM, KEY, QUIET, plant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OF_SAMPLES = {"overview": "overview", "source": "sources/earthquakes"}
OF_STAGE = {
    "attention": "overview",
    "sources": "sources",
    "why": "sources/late",
    "new-source": "new-source",
    "runs": "runs",
    "run": "runs/{run}",
    "errors": "errors",
    "rejects": "rejects",
    "case": "rejects/{case}",
    "data": "data",
    "item": "data/{item}",
    "replays": "replays",
    "hosts": "hosts",
    "system": "system",
    "alerts": "alerts",
    "access": "access",
}
# Two days of runs, as if it had gone on so long: the sample data is of one moment.
_HISTORY = """
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, created_at, started_at, completed_at,
        records_extracted, records_unchanged)
    SELECT gen_random_uuid(), c.source_name, c.source_type, 'schedule',
        CASE WHEN n = 61 THEN 'failed' WHEN n % 37 = 0 THEN 'partial' ELSE 'success' END, 'done', at, at,
        at + interval '1 s' * (1 + (n * 7 % 5) * 0.2), c.total_items, c.total_items
    FROM etl_checkpoints c, generate_series(1, 95) n, LATERAL (SELECT now() - n * interval '30 min' AS at) t
"""


def main() -> None:
    """Make all of them anew."""
    folder = PROJECT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    with running_servers("kasparro-pictures-") as (servers, place), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        with samples(servers, place) as service:
            for theme in ("light", "dark"):
                take(browser, service, OF_SAMPLES, folder, theme, f"-{theme}")
        with stage(servers, place) as service:
            ids = {
                "run": service.sql(
                    "SELECT run_id FROM etl_runs WHERE source_name = 'mixed' ORDER BY created_at LIMIT 1"
                )[0],
                "case": service.sql("SELECT min(id) FROM rejected_records")[0],
                "item": service.sql("SELECT min(id) FROM unified_items WHERE source_name = 'shop'")[0],
            }
            pages = {name: path.format(**ids) for name, path in OF_STAGE.items()}
            take(browser, service, pages, folder, "light", "")
        browser.close()


@contextmanager
def samples(servers: Servers, place: Path) -> Iterator[Service]:
    """The sources that `make up` runs."""
    service = _service(servers, place, "samples")
    port = ports.free_port()
    service.environment |= {
        "API_KEYS": KEY,
        "SAMPLES_PORT": str(port),
        "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
        "ENABLE_SCHEDULER": "true",
    }
    service.environment |= {"SOURCES_FILE": str(PROJECT / "sources.yaml"), "CSV_ROOTS": str(PROJECT / "data")}
    with ExitStack() as ends:
        ends.callback(service.stop_all)
        service.start("samples", "gunicorn", f"--bind=127.0.0.1:{port}", "stack.samples:app")
        done = service.command(service.tree.python, "-m", "db", "sources")
        assert done.returncode == 0, done.stderr
        service.sql("UPDATE sources SET next_run_at = now() + interval '25 min'")
        service.start("beat", "celery", "-A", "worker", "beat", "--pidfile=")
        service.start_web()
        service.start_worker()
        for run in service.post("/runs", {}).json()["runs"]:
            service.await_end(run["run_id"])
        wait_until(lambda: service.sql("SELECT count(*) FROM etl_runs WHERE NOT rolled_up")[0] == 0)
        service.sql(_HISTORY)
        wait_until(lambda: service.sql("SELECT count(*) FROM etl_runs WHERE NOT rolled_up")[0] == 0)
        yield service


@contextmanager
def stage(servers: Servers, place: Path) -> Iterator[Service]:
    """One of every trouble."""
    service = _service(servers, place, "stage")
    with ExitStack() as ends, FakeServer() as server:
        ends.callback(service.stop_all)
        plant(service, server)
        yield service


def _service(servers: Servers, place: Path, name: str) -> Service:
    (place / name).mkdir()
    service = Service(servers, make_database(servers, name, template="migrated"), place / name)
    service.flush_broker()
    return service


def take(browser: Any, service: Service, pages: dict[str, str], folder: Path, theme: str, ending: str) -> None:
    """A picture of each page."""
    context = browser.new_context(color_scheme=theme, viewport={"width": 1100, "height": 640}, locale="en-GB")
    page = context.new_page()
    page.goto(f"{service.url}/ui/sign-in")
    page.fill("[name=key]", KEY)
    page.click("main button")
    for name, path in pages.items():
        page.goto(f"{service.url}/ui/{path}")
        page.wait_for_timeout(200)
        page.screenshot(path=str(folder / f"{name}{ending}.png"), full_page=name not in {"runs", "data", "system"})
    context.close()


if __name__ == "__main__":
    os.environ.setdefault("TZ", "UTC")
    main()
