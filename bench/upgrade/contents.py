"""What the database holds before the migration, and what is written to each of its tables meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

# Sources with runs that ended, and some that are at work: queued, running, and with open batches in both states.
SOURCES, RUNS_EACH, AT_WORK = 200, 200, 60

_FILL = f"""
    INSERT INTO sources (name, type, config, enabled, next_run_at, origin)
    SELECT 's' || n, 'csv', jsonb_build_object('name', 's' || n, 'type', 'csv', 'file', 'x.csv'), true,
        now() + interval '30 minutes', 'file'
    FROM generate_series(1, {SOURCES}) n;

    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, created_at, started_at, completed_at,
        extracted_at, rolled_up, records_extracted, records_inserted)
    SELECT gen_random_uuid(), 's' || s, 'csv', 'schedule',
        (ARRAY['success', 'partial', 'failed', 'skipped', 'cancelled'])[1 + n % 5], 'done', t, t, t, t, true, 25, 25
    FROM generate_series(1, {SOURCES}) s, generate_series(1, {RUNS_EACH}) n, LATERAL (SELECT now() - n * interval '1 h' AS t) a;

    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, attempt, token, worker, started_at,
        lease_expires_at, dispatched_at, claimed_at, position, batches)
    SELECT gen_random_uuid(), 's' || n, 'csv', (ARRAY['schedule', 'api', 'cli'])[1 + n % 3],
        CASE WHEN n % 4 = 0 THEN 'queued' ELSE 'running' END,
        (ARRAY['queued', 'extracting', 'waiting', 'loading'])[1 + n % 4], 1, 1, 'w', now(),
        CASE WHEN n % 4 = 1 THEN now() + interval '1 h' END, now(), now(), '{{}}', 2
    FROM generate_series(1, {AT_WORK}) n;

    INSERT INTO etl_batches (run_id, source_name, number, state, loaded_at, rolled_up, records_extracted, records_inserted)
    SELECT run_id, source_name, n, (ARRAY['loaded', 'halved', 'dropped'])[1 + n % 3], now(), true, 25, 25
    FROM etl_runs, generate_series(1, 3) n WHERE status NOT IN ('queued', 'running');
    INSERT INTO etl_batches (run_id, source_name, number, state, token, records_extracted)
    SELECT run_id, source_name, n, (ARRAY['extracted', 'normalized'])[n], 1, 25
    FROM etl_runs, generate_series(1, 2) n WHERE status = 'running';

    INSERT INTO etl_run_events (run_id, event)
    SELECT run_id, event FROM etl_runs, unnest(ARRAY['queued', 'claimed', 'finished']) event;

    INSERT INTO unified_items (source_type, source_name, external_id, title, amount, created_at, updated_at,
        raw_data_id, raw_ingested_at, run_id, content_hash, mapping_version)
    SELECT 'csv', 's' || 1 + n % {SOURCES}, 'P' || n, 'amber birch ' || n, n % 1000, now() - n * interval '1 ms', now(), n,
        now(), gen_random_uuid(), '\\x00', 1
    FROM generate_series(1, :items) n;
    INSERT INTO raw_data (id, run_id, source_type, source_name, source_id, raw_payload, content_hash)
    SELECT n, gen_random_uuid(), 'csv', 's' || 1 + n % {SOURCES}, 'P' || n, '{{"id": 1}}', '\\x00'
    FROM generate_series(1, :items) n;
    SELECT setval('raw_data_id_seq', :items);
    INSERT INTO rejected_records (run_id, source_name, source_type, content_hash, stage, field, rule, message,
        mapping_version)
    SELECT gen_random_uuid(), 's' || 1 + n % {SOURCES}, 'csv', decode(md5(n::text), 'hex'), (ARRAY['extract', 'normalize'])[1 + n % 2], 'amount',
        'type', 'no number', 1
    FROM generate_series(1, :items / 10) n;

    INSERT INTO etl_checkpoints (source_name, source_type, total_items, total_runs, total_success)
    SELECT source_name, 'csv', count(*), {RUNS_EACH}, 1 FROM unified_items GROUP BY source_name;
    INSERT INTO etl_totals (source_type, items, judged) VALUES ('csv', :items, 1);
"""


def filling(items: int) -> list[str]:
    """The statements that fill an empty schema."""
    return [one.replace(":items", str(items)) for one in _FILL.split(";") if one.strip()]


@dataclass(frozen=True)
class Writes:
    """One write to a table, and how many of them there have been.

    Those of a writer bear its mark, `upgrade`, so that all other rows can be compared with what they were.
    """

    table: str
    first: str
    write: str
    count: str
    others: str


def _inserts(table: str, columns: str, values: str, mark: str = "source_name") -> Writes:
    return Writes(
        table,
        "SELECT 1",
        f"INSERT INTO {table} ({columns}) SELECT {values}",
        f"SELECT count(*) FROM {table} WHERE {mark} = 'upgrade'",
        f"{mark} IS DISTINCT FROM 'upgrade'",
    )


def _counts(table: str, key: str, first: str, column: str) -> Writes:
    return Writes(
        table,
        first,
        f"UPDATE {table} SET {column} = {column} + 1 WHERE {key} = 'upgrade'",
        f"SELECT {column} FROM {table} WHERE {key} = 'upgrade'",
        f"{key} <> 'upgrade'",
    )


_RUN = "gen_random_uuid(), 'upgrade', 'csv'"
_EXTRA_RUN = f"""
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, lane, token)
    VALUES ({_RUN}, 'api', 'running', 'extracting', 'replay', 0)
"""

WRITES = (
    _counts(
        "sources",
        "name",
        "INSERT INTO sources (name, type, config, enabled, origin, version) VALUES ('upgrade', 'csv', '{}', false, 'x', 0)",
        "version",
    ),
    # A lease that is renewed, under the fence, in a run that is at work.
    _counts("etl_runs", "source_name", _EXTRA_RUN, "token"),
    _inserts(
        "etl_batches",
        "run_id, source_name, number, state",
        "(SELECT run_id FROM etl_runs WHERE source_name = 's1' LIMIT 1), 'upgrade', "
        "1000 + (SELECT count(*) FROM etl_batches WHERE source_name = 'upgrade'), 'loaded'",
    ),
    _inserts(
        "etl_run_events",
        "run_id, event",
        "(SELECT run_id FROM etl_runs WHERE source_name = 's1' LIMIT 1), 'upgrade'",
        "event",
    ),
    _counts(
        "etl_checkpoints",
        "source_name",
        "INSERT INTO etl_checkpoints (source_name, source_type) VALUES ('upgrade', 'csv')",
        "total_items",
    ),
    _counts("etl_totals", "source_type", "INSERT INTO etl_totals (source_type) VALUES ('upgrade')", "items"),
    _inserts(
        "raw_data",
        "run_id, source_name, source_type, raw_payload, content_hash",
        f"{_RUN}, '{{}}', '\\x00'",
    ),
    _inserts(
        "staged_items",
        "batch_id, token, raw_data_id, raw_ingested_at, external_id, content_hash, metadata, title",
        "0, 0, (SELECT count(*) FROM staged_items), now(), 'x', '\\x00', '{}', 'upgrade'",
        "title",
    ),
    _inserts(
        "unified_items",
        "run_id, source_name, source_type, external_id, raw_data_id, raw_ingested_at, content_hash, mapping_version",
        f"{_RUN}, gen_random_uuid()::text, 1, now(), '\\x00', 1",
    ),
    _inserts(
        "rejected_records",
        "run_id, source_name, source_type, content_hash, stage, field, rule, message, mapping_version",
        # As releases before quarantine held one case per record: the same record again and again.
        f"{_RUN}, '\\x00', 'extract', 'a', 'csv', 'm', 1",
    ),
    _counts("etl_workers", "name", "INSERT INTO etl_workers (name, kind) VALUES ('upgrade', 'worker')", "processes"),
    _counts("etl_looks", "name", "INSERT INTO etl_looks (name) VALUES ('upgrade')", "seen"),
)
