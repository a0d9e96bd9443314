"""What one would write by hand: SQL and nothing else for files, a plain loop for an API."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import psycopg2
import requests
from psycopg2.extras import execute_values

from bench.speed.data import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

_STAGING = ", ".join(f"{column} text" for column in COLUMNS)
# The same tables and indexes as ours: a raw copy as jsonb with a hash, and an upsert that leaves the unchanged alone.
_RAW = """
    INSERT INTO raw_data (run_id, source_type, source_name, source_id, raw_payload, content_hash)
    SELECT '00000000-0000-0000-0000-000000000001', 'csv', 'reference', id, to_jsonb(s), decode(md5(s::text), 'hex')
    FROM staging s
"""
_UPSERT = """
    INSERT INTO unified_items AS item (
        source_type, source_name, external_id, title, description, category, amount, quantity, rating, author, tags,
        published_at, raw_data_id, raw_ingested_at, run_id, content_hash, mapping_version)
    SELECT 'csv', 'reference', id, name, description, category, price::numeric, stock::numeric, rating::numeric, author,
        string_to_array(tags, ','), created_at::timestamptz, 1, now(), '00000000-0000-0000-0000-000000000001',
        decode(md5(s::text), 'hex'), 1
    FROM staging s
    ON CONFLICT (source_name, external_id) DO UPDATE SET
        title = excluded.title, description = excluded.description, category = excluded.category,
        amount = excluded.amount, quantity = excluded.quantity, rating = excluded.rating, author = excluded.author,
        tags = excluded.tags, published_at = excluded.published_at, content_hash = excluded.content_hash,
        updated_at = clock_timestamp(), change_xid = pg_current_xact_id()
    WHERE item.content_hash <> excluded.content_hash
"""


def load_csv(url: str, path: Path) -> float:
    """COPY into a staging table, insert the raw copy, upsert the items, commit; seconds."""
    connection = psycopg2.connect(url)
    started = time.monotonic()
    with connection, connection.cursor() as cursor, path.open("rb") as file:
        cursor.execute(f"CREATE TEMP TABLE staging ({_STAGING}) ON COMMIT DROP")
        cursor.copy_expert("COPY staging FROM STDIN (FORMAT csv, HEADER true)", file)
        cursor.execute(_RAW)
        cursor.execute(_UPSERT)
    seconds = time.monotonic() - started
    connection.close()
    return seconds


def load_csv_on_two_connections(url: str, halves: tuple[Path, Path]) -> float:
    """The same of two files at once: as much as two cores can do by SQL alone; seconds."""
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(load_csv, url), halves))
    return time.monotonic() - started


def load_api(url: str, address: str) -> float:
    """A straightforward loop: a page with requests, its rows with execute_values; seconds."""
    connection = psycopg2.connect(url)
    session = requests.Session()
    started = time.monotonic()
    page = 0
    while True:
        page += 1
        rows = session.get(address, params={"page": page}, timeout=30).json()
        if not rows:
            break
        with connection, connection.cursor() as cursor:
            hashed = [(row, json.dumps(row, sort_keys=True)) for row in rows]
            digests = [hashlib.sha256(text.encode()).digest()[:16] for _, text in hashed]
            execute_values(
                cursor,
                "INSERT INTO raw_data (run_id, source_type, source_name, source_id, raw_payload, content_hash) VALUES %s",
                [
                    ("00000000-0000-0000-0000-000000000001", "api", "reference", row["id"], text, digest)
                    for (row, text), digest in zip(hashed, digests, strict=True)
                ],
            )
            execute_values(
                cursor,
                """
                INSERT INTO unified_items (source_type, source_name, external_id, title, description, category, amount,
                    quantity, rating, author, tags, published_at, raw_data_id, raw_ingested_at, run_id, content_hash,
                    mapping_version) VALUES %s
                ON CONFLICT (source_name, external_id) DO UPDATE SET title = excluded.title,
                    description = excluded.description, amount = excluded.amount, content_hash = excluded.content_hash
                """,
                [
                    (
                        *("api", "reference", row["id"], row["name"], row["description"], row["category"]),
                        *(row["price"], row["stock"], row["rating"], row["author"], row["tags"].split(",")),
                        *(row["created_at"], 1, "now", "00000000-0000-0000-0000-000000000001", digest, 1),
                    )
                    for (row, _), digest in zip(hashed, digests, strict=True)
                ],
            )
    seconds = time.monotonic() - started
    connection.close()
    return seconds
