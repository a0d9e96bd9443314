"""Real processes: workers, beat and web as they are run in production, on a database of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.service import Servers, Service, make_database

SHOP = "sources:\n  - {name: shop, type: csv, file: shop.csv}\n"


@pytest.fixture
def service(servers: Servers, migrated: str, tmp_path: Path) -> Iterator[Service]:
    url = make_database(servers, "acceptance", template="migrated")
    made = Service(servers, url, tmp_path)
    made.flush_broker()
    done = made.declare(SHOP)
    assert done.returncode == 0, done.stderr
    try:
        yield made
    finally:
        made.stop_all()
