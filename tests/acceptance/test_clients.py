"""Clients that are slow, held by the dozen: the service goes on answering."""

from __future__ import annotations

import pytest
import requests

from bench.slow import KINDS, slow_clients
from testkit.service import Service

LARGE = """
    INSERT INTO unified_items (source_type, source_name, external_id, title, description, raw_data_id, raw_ingested_at,
        run_id, content_hash, mapping_version)
    SELECT 'csv', 'large', n::text, 'large', string_agg(md5(n || ' ' || m), ''), n, now(), gen_random_uuid(), '\\x00', 1
    FROM generate_series(1, 50) n, generate_series(1, 3000) m GROUP BY n
"""


@pytest.mark.parametrize("kind", KINDS)
def test_slow_clients_keep_nobody_else_waiting(service: Service, kind: str) -> None:
    service.sql(LARGE)
    service.declare("sources:\n  - {name: large, type: csv, file: shop.csv}\n")
    service.start_web()
    with slow_clients(service.port, kind, 40):
        for _ in range(10):
            for path in ("/health/ready", "/data?page_size=5&source_name=large", "/health"):
                assert requests.get(service.url + path, timeout=10).status_code == 200
