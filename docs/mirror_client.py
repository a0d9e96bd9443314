# ruff: noqa: INP001, S310
"""Keeps a copy of the items of a Kasparro ETL service in an SQLite file: python mirror_client.py URL FILE.

Run it as often as you like. It gets what changed since the last time, deletions included, and begins anew when the
service says that its database was restored. The key, where one is needed, comes from the variable KASPARRO_KEY.
"""

from __future__ import annotations

import http.client
import json
import os
import sqlite3
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


def get(url: str, cursor: str | None) -> dict[str, Any]:
    """One answer; tried again for a while when the service is busy or away."""
    address = f"{url}/data/changes?" + urllib.parse.urlencode({"limit": 1000, **({"cursor": cursor} if cursor else {})})
    headers = {"Authorization": f"Bearer {os.environ['KASPARRO_KEY']}"} if "KASPARRO_KEY" in os.environ else {}
    for wait in (1, 2, 5, 10, 30, 0):
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code not in {429, 500, 502, 503, 504} or not wait:
                raise
        except (OSError, http.client.HTTPException):
            if not wait:
                raise
        time.sleep(wait)
    raise AssertionError("the last try raises")


def sync(url: str, file: str) -> float:
    """Bring the copy up to date but for the last seconds, as many as are returned: 0 as a rule.

    What was read and how far stand in one transaction.
    """
    resets = 0
    copy = sqlite3.connect(file)
    copy.execute("CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, status TEXT, item TEXT)")
    copy.execute("CREATE TABLE IF NOT EXISTS position (cursor TEXT)")
    row = copy.execute("SELECT cursor FROM position").fetchone()
    cursor: str | None = row[0] if row else None
    while True:
        try:
            answer = get(url, cursor)
        except urllib.error.HTTPError as error:
            if error.code != 410 or resets == 3:
                raise
            resets += 1
            cursor = None
            copy.execute("DELETE FROM items")
            copy.execute("DELETE FROM position")
            continue
        rows = [(item["id"], item["status"], json.dumps(item)) for item in answer["changes"]]
        cursor = answer["next_cursor"]
        copy.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)
        copy.execute("DELETE FROM position")
        copy.execute("INSERT INTO position VALUES (?)", (cursor,))
        copy.commit()
        if not answer["has_more"]:
            return float(answer["behind_seconds"])


if __name__ == "__main__":
    behind = sync(sys.argv[1].rstrip("/"), sys.argv[2])
    print(f"up to date but for what changed in the last {behind:.3f} s" if behind else "up to date")
