"""The control arm: the textbook chain, with Celery's defaults and the data in the messages.

It loads the same records into a table of its own. Killed like the product's workers, it must lose some.
"""

from __future__ import annotations

import os

import psycopg2
import requests
from celery import Celery, chain

app = Celery("naive", broker=os.environ.get("REDIS_URL", ""))
app.conf.task_ignore_result = True
app.conf.task_default_queue = "naive"

UPSERT = """INSERT INTO naive_items VALUES (%s, %s, %s)
            ON CONFLICT (source, id) DO UPDATE SET amount = excluded.amount"""
TABLE = "CREATE TABLE IF NOT EXISTS naive_items (source text, id text, amount bigint, PRIMARY KEY (source, id))"


@app.task
def extract(url: str, page: int) -> None:
    """Fetch a page, pass its records on, and send for the next."""
    records = requests.get(url, params={"page": str(page)}, timeout=5).json()
    if records:
        extract.delay(url, page + 1)
        chain(normalize.s(records), load.s(url)).delay()


@app.task
def normalize(records: list[dict[str, object]]) -> list[tuple[object, object]]:
    """Keep what has a number."""
    return [(record["id"], record["price"]) for record in records if isinstance(record["price"], int)]


@app.task
def load(rows: list[tuple[object, object]], source: str) -> None:
    """Upsert the rows."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    with connection, connection.cursor() as cursor:
        for key, amount in rows:
            cursor.execute(UPSERT, (source, key, amount))
    connection.close()
