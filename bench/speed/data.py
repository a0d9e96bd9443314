"""What is loaded: made from a seed, so that every arm of a benchmark gets the same."""

from __future__ import annotations

import csv
import random
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = ("id", "name", "description", "category", "price", "stock", "rating", "author", "tags", "created_at")
MAPPING = {
    "external_id": "id",
    "title": "name",
    "description": "description",
    "category": "category",
    "amount": "price",
    "quantity": "stock",
    "rating": "rating",
    "author": "author",
    "tags": "tags",
    "published_at": "created_at",
}
_WORDS = [
    "amber",
    "birch",
    "copper",
    "dawn",
    "ember",
    "fern",
    "glass",
    "harbour",
    "iris",
    "juniper",
    "kiln",
    "linen",
    "maple",
    "north",
    "olive",
    "pine",
    "quartz",
    "river",
    "stone",
    "timber",
    "umber",
    "velvet",
    "willow",
    "xenon",
    "yarrow",
    "zinc",
]


def products(count: int, seed: int = 1) -> Iterator[dict[str, str]]:
    """Products of about 180 bytes each."""
    dice = random.Random(seed)
    for number in range(count):
        words = dice.choices(_WORDS, k=14)
        yield {
            "id": f"P{number:08}",
            "name": " ".join(words[:3]),
            "description": " ".join(words[3:13]),
            "category": words[13],
            "price": f"{dice.randrange(100, 100_000) / 100:.2f}",
            "stock": str(dice.randrange(1000)),
            "rating": str(dice.randrange(10, 51) / 10),
            "author": f"maker {dice.randrange(500)}",
            "tags": f"{words[0]},{words[5]}",
            "created_at": f"2026-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:00:00Z",
        }


def write_csv(path: Path, rows: Iterator[dict[str, str]]) -> int:
    """Write products as CSV; the size in bytes."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row.values() for row in rows)
    return path.stat().st_size


def halves(path: Path) -> tuple[Path, Path]:
    """A CSV file as two of half its rows."""
    head, *rows = path.read_text().splitlines(keepends=True)
    both = path.with_suffix(".1.csv"), path.with_suffix(".2.csv")
    for number, half in enumerate(both):
        half.write_text("".join([head, *rows[number::2]]))
    return both


def json_pages(count: int, size: int) -> list[bytes]:
    """Products as JSON in pages, numbers as numbers; an empty page at the end."""
    encode = msgspec.json.encode
    rows = list(map(_typed, products(count)))
    return [encode(rows[start : start + size]) for start in range(0, count, size)] + [b"[]"]


def feed(count: int, paragraphs: int) -> bytes:
    """An RSS feed: of headlines of some 300 bytes, or of articles with so many paragraphs of some 190 bytes."""
    items = "".join(
        f"<item><guid isPermaLink='false'>{row['id']}</guid><title>{row['name']}</title>"
        f"<description>{_article(row, paragraphs) or row['description']}</description>"
        f"<link>http://example.com/{row['id']}</link>"
        f"<category>{row['category']}</category><author>{row['author']}</author>"
        f"<pubDate>Tue, 06 Jan 2026 08:04:11 GMT</pubDate></item>\n"
        for row in products(count)
    )
    head = '<?xml version="1.0" encoding="utf-8"?><rss version="2.0"><channel><title>products</title>'
    return f"{head}{items}</channel></rss>".encode()


def _article(row: dict[str, str], paragraphs: int) -> str:
    text = "".join(
        f"<p>{row['description']} <a href='/{row['id']}/{number}'>{row['name']}</a> &amp; {row['description']}</p>\n"
        for number in range(paragraphs)
    )
    return text and f"<![CDATA[{text}]]>"


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {**row, "price": float(row["price"]), "stock": int(row["stock"]), "rating": float(row["rating"])}
