"""Items as many services hold them: a few huge sources and thousands of tiny ones, absent values, long texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TINY_SOURCES = 5_000
# A newspaper's archive was loaded at once, shops follow one another, feeds trickle in; `place` is when, from 0 to 1.
# What is absent differs by kind: feeds have neither amount nor rating. Categories follow a power law.
_FILL = """
    SELECT setseed(0.42);
    CREATE TEMP TABLE drawn AS
    SELECT n, n::float8 / {items} AS place, random() AS a, random() AS b, random() AS c, random() AS d, random() AS e,
        random() AS f, random() AS g, random() AS h, random() AS i, random() AS j, random() AS k
    FROM generate_series(1, {items}) n;
    CREATE TEMP TABLE sourced AS
    SELECT *, CASE
        WHEN place < 0.3 AND a < 0.9 THEN 'archive'
        WHEN place < 0.6 AND a < 0.5 THEN 'market'
        WHEN a < 0.12 THEN 'wire'
        WHEN a < 0.5 THEN 'shop' || floor(place * 12)
        ELSE 'tiny' || floor(b * {tiny}) END AS name
    FROM drawn;
    CREATE TEMP TABLE typed AS
    SELECT *, CASE WHEN name IN ('archive', 'shop1', 'shop5') THEN 'csv' WHEN name = 'wire' THEN 'rss'
        WHEN name LIKE 'tiny%' THEN (ARRAY['rss', 'rss', 'api', 'csv'])[1 + (hashtext(name) & 3)] ELSE 'api' END AS type,
        timestamptz '2026-01-01' + place * interval '300 days' AS loaded
    FROM sourced;
    INSERT INTO unified_items (source_type, source_name, external_id, title, description, category, amount, quantity,
        rating, author, tags, published_at, status, created_at, updated_at, raw_data_id, raw_ingested_at, run_id,
        content_hash, mapping_version)
    SELECT type, name, 'P' || n,
        CASE WHEN f > 0.02 THEN (ARRAY['Amber', 'birch', 'Copper', 'dawn', 'ember', 'Fern', 'glass', 'Harbour'])[1 + floor(c * 8)]
            || ' ' || substr(md5(n::text), 1, 8) || repeat(' and on', CASE WHEN f > 0.98 THEN 300 ELSE 2 END)
            || CASE WHEN n % 100000 = 7 THEN repeat(md5(n::text), 3200) ELSE '' END END,
        CASE WHEN g < 0.3 THEN 'frequent ' ELSE '' END || CASE WHEN g < 0.005 THEN 'middling ' ELSE '' END
            || CASE WHEN g < 0.00005 THEN 'rare ' ELSE '' END || 'kiln linen maple north olive ' || md5((n + 1)::text)
            || repeat(' pine quartz river stone', CASE WHEN d < 0.03 THEN 100 ELSE 2 END),
        CASE WHEN e < 0.67 THEN 'c' || floor(20000 * power(d, 6)) END,
        CASE WHEN type <> 'rss' AND k > 0.15 THEN round((exp(h * 9))::numeric, 2) END, floor(b * 1000),
        CASE WHEN type <> 'rss' AND k BETWEEN 0.05 AND 0.9 THEN round((1 + 4 * sqrt(i))::numeric, 1) END,
        'maker ' || floor(a * 500), ARRAY['a', 'b'],
        CASE WHEN name = 'archive' THEN loaded - (0.5 + j * 8) * interval '1 year'
            WHEN type = 'rss' THEN loaded - j * j * interval '3 days'
            WHEN k < 0.5 THEN loaded - j * interval '400 days' END,
        CASE WHEN f BETWEEN 0.5 AND 0.53 THEN 'deleted' ELSE 'active' END,
        loaded, greatest(loaded, CASE WHEN g > 0.8 THEN loaded + (timestamptz '2026-10-28' - loaded) * j ELSE loaded END),
        n, loaded, '00000000-0000-0000-0000-000000000001', '\\x00', 1
    FROM typed ORDER BY n;
    INSERT INTO sources (name, type, config, enabled, origin)
    SELECT source_name, min(source_type), jsonb_build_object('name', source_name, 'type', min(source_type)), true, 'file'
    FROM unified_items GROUP BY source_name;
    INSERT INTO etl_checkpoints (source_name, source_type, total_items, total_runs, total_success)
    SELECT source_name, min(source_type), count(*), 1, 1 FROM unified_items GROUP BY source_name;
    INSERT INTO etl_totals (source_type, items, judged)
    SELECT source_type, sum(total_items), sum(total_success) FROM etl_checkpoints GROUP BY source_type;
    DROP TABLE drawn, sourced, typed;
"""


@dataclass(frozen=True)
class Choice:
    """A filter's value, and how frequent it is."""

    filter: str
    value: str
    share: str


# Fixed before anything was measured: per filter a frequent, a middling and a rare value.
CHOICES = (
    Choice("source_type", "api", "frequent"),
    Choice("source_type", "csv", "middling"),
    Choice("source_type", "rss", "rare"),
    Choice("source_name", "archive", "frequent"),
    Choice("source_name", "shop8", "middling"),
    Choice("source_name", "tiny77", "rare"),
    Choice("category", "c0", "frequent"),
    Choice("category", "c9", "middling"),
    Choice("category", "c19000", "rare"),
    Choice("status", "deleted", "rare"),
    Choice("search", "frequent", "frequent"),
    Choice("search", "middling", "middling"),
    Choice("search", "rare", "rare"),
    Choice("published_after", "2026-03-01T00:00:00Z", "frequent"),
    Choice("published_after", "2026-09-20T00:00:00Z", "middling"),
    Choice("published_after", "2026-10-27T12:00:00Z", "rare"),
    Choice("published_before", "2026-03-01T00:00:00Z", "frequent"),
    Choice("published_before", "2019-01-01T00:00:00Z", "middling"),
    Choice("published_before", "2017-08-01T00:00:00Z", "rare"),
    Choice("updated_since", "2026-05-01T00:00:00Z", "frequent"),
    Choice("updated_since", "2026-10-10T00:00:00Z", "middling"),
    Choice("updated_since", "2026-10-27T20:00:00Z", "rare"),
)


def fill(execute: Callable[[str], object], items: int) -> None:
    """Fill an empty schema with so many items, and have PostgreSQL know them."""
    for statement in _FILL.format(items=items, tiny=TINY_SOURCES).split(";\n"):
        if statement.strip():
            execute(statement)
    execute("VACUUM (ANALYZE)")
