"""How fast items go out over HTTP, against `COPY … TO STDOUT` of the same columns by psql.

Both take turns over the same items, narrow ones and wide ones; what is told is the median of their ratios, and how much
the process that sends grew. `python -m bench.export --items 1000000 --pairs 5`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import psutil
import requests

from db.queries.exports import EXPORTED
from stack.account import binaries
from testkit.service import Service, make_database, running_servers

# By how long the description of an item is: characters.
WIDTHS = {"narrow": 20, "wide": 500}
AIM = 0.4
_PIECE = 1024 * 1024
# To pack it costs more than to read it.
_AS_IS = {"Accept-Encoding": "identity"}
_FILL = """
    TRUNCATE unified_items;
    INSERT INTO unified_items (source_type, source_name, external_id, title, description, amount, published_at, tags,
        metadata, raw_data_id, raw_ingested_at, run_id, content_hash, mapping_version)
    SELECT 'csv', 'shop', n::text, 'thing ' || n, repeat('x', {width}), n % 1000, now() - n * interval '1 min',
        '{{a,b}}', '{{"of": "it"}}', n, now(), gen_random_uuid(), '\\x00', 1
    FROM generate_series(1, {items}) n
"""
_COPY = "COPY (SELECT {columns} FROM unified_items WHERE deleted_at IS NULL ORDER BY id) TO STDOUT"


def copied(service: Service) -> float:
    """How long psql takes for all items: seconds."""
    query = _COPY.format(columns=", ".join(EXPORTED))
    psql = str(binaries() / "bin" / "psql")
    started = time.perf_counter()
    subprocess.run([psql, "-qX", "-c", query, service.database_url], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def exported(service: Service, form: str, items: int) -> tuple[float, int]:
    """How long an export takes: seconds, and how much its process grew: bytes."""
    (process,) = psutil.Process(service.pid("web")).children()
    before, most, tail = process.memory_info().rss, 0, b""
    started = time.perf_counter()
    with requests.get(f"{service.url}/data/export?format={form}", headers=_AS_IS, stream=True, timeout=60) as answer:
        for piece in answer.iter_content(_PIECE):
            tail = piece
            most = max(most, process.memory_info().rss)
        took = time.perf_counter() - started
        told = service.get(f"/data/export/{answer.headers['Export-Id']}")
    assert (told["state"], told["items"]) == ("complete", items), told
    assert form != "ndjson" or json.loads(tail.splitlines()[-1])["sha256"] == told["sha256"]
    return took, most - before


def measured(service: Service, width: str, form: str, items: int, pairs: int) -> float:
    """The median ratio of the two rates, told on a line."""
    ratios, rates, grown = [], [], 0
    for _ in range(pairs):
        copy = copied(service)
        export, more = exported(service, form, items)
        ratios.append(copy / export)
        rates.append(items / export)
        grown = max(grown, more)
    ratio = statistics.median(ratios)
    print(
        f"{width:8} {form:8} {statistics.median(rates):10,.0f} items/s  {ratio:5.2f} x COPY ({min(ratios):.2f} to {max(ratios):.2f})"
        f"  {grown / 2**20:5.1f} MiB more",
        flush=True,
    )
    return ratio


def main() -> int:
    """0 if each form goes out at `AIM` of the rate of COPY."""
    parser = argparse.ArgumentParser(prog="bench.export", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    ratios = []
    with running_servers("kasparro-export-") as (servers, folder):
        service = Service(servers, make_database(servers, "export", template="migrated"), folder)
        try:
            service.start_web()
            for name, width in WIDTHS.items():
                service.sql(_FILL.format(width=width, items=arguments.items))
                service.sql("VACUUM (ANALYZE) unified_items")
                ratios += [
                    measured(service, name, form, arguments.items, arguments.pairs) for form in ("ndjson", "csv")
                ]
        finally:
            service.stop_all()
    return int(min(ratios) < AIM)


if __name__ == "__main__":
    sys.exit(main())
