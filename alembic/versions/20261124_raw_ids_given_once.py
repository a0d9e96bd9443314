"""Raw ids are given once.

A crash of PostgreSQL could set the sequence of raw ids back behind ids that were stored afterwards. They were then given
a second time: a batch found rows of another one in its range and was halved without end, or a newer record lost to an
older one because its id was lower. Here the sequence is set above every id in use, and the sources of the runs that were
hurt start again from before the first of them.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE etl_alarms (
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        since TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        CONSTRAINT pk_etl_alarms PRIMARY KEY (code)
    )
    """,
    """
    CREATE TABLE etl_looks (
        name TEXT NOT NULL,
        seen BIGINT DEFAULT '0' NOT NULL,
        looked_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        CONSTRAINT pk_etl_looks PRIMARY KEY (name)
    )
    """,
)

# A run is hurt if one of its ids was given twice, or if one of its batches does not lie above all that its source has
# stored before: the ids of one source are given in the order of its runs and batches.
HURT = """
    CREATE TEMPORARY TABLE hurt ON COMMIT DROP AS
    WITH twice AS (
        SELECT id FROM raw_data GROUP BY id HAVING count(*) > 1
    ), ranges AS (
        SELECT b.source_name, b.run_id, b.first_raw_id,
            max(b.last_raw_id) OVER (PARTITION BY b.source_name ORDER BY r.created_at, r.run_id, b.number
                                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM etl_batches b JOIN etl_runs r USING (run_id)
        WHERE b.part = '' AND b.first_raw_id IS NOT NULL AND r.lane = 'fetch'
    ), found AS (
        SELECT p.source_name, p.run_id, min(p.ingested_at) AS stored_at
        FROM raw_data p JOIN twice USING (id) GROUP BY p.source_name, p.run_id
        UNION ALL
        SELECT source_name, run_id, NULL FROM ranges WHERE first_raw_id <= before
    )
    SELECT f.source_name, f.run_id, r.checkpoint_before, r.run_id IS NOT NULL AS known,
        coalesce(r.created_at, f.stored_at) AS at
    FROM found f LEFT JOIN etl_runs r USING (run_id)
"""

# Runs of a hurt source that are not over would promote what they go by. As any end of a run, this one comes between two
# batches and not in the middle of one.
WAIT = """
    SELECT count(pg_advisory_xact_lock(hashtextextended(run_id::text, 0))) FROM (
        SELECT run_id FROM etl_runs
        WHERE status IN ('queued', 'running') AND source_name IN (SELECT source_name FROM hurt) ORDER BY run_id
    ) active
"""
# What a batch commits until here is seen by the statement after it.
LOCK_RUNS = """
    SELECT count(*) FROM (
        SELECT 1 FROM etl_runs
        WHERE status IN ('queued', 'running') AND source_name IN (SELECT source_name FROM hurt)
        ORDER BY run_id FOR UPDATE
    ) locked
"""
END_RUNS = """
    WITH ended AS (
        UPDATE etl_runs r
        SET status = 'failed', stage = 'done', completed_at = clock_timestamp(), token = r.token + 1,
            lease_expires_at = NULL, not_before = NULL, extracted_at = coalesce(r.extracted_at, clock_timestamp()),
            error_code = 'raw_ids_repeated',
            error_message = 'a crash of the database had given raw ids twice; the source is read again',
            records_extracted = b.extracted, records_inserted = b.inserted, records_updated = b.updated,
            records_unchanged = b.unchanged, records_duplicate = b.duplicate, records_failed = b.failed
        FROM etl_runs a CROSS JOIN LATERAL (
            SELECT coalesce(sum(records_extracted), 0) AS extracted, coalesce(sum(records_inserted), 0) AS inserted,
                coalesce(sum(records_updated), 0) AS updated, coalesce(sum(records_unchanged), 0) AS unchanged,
                coalesce(sum(records_duplicate), 0) AS duplicate, coalesce(sum(records_failed), 0) AS failed
            FROM etl_batches WHERE run_id = a.run_id) b
        WHERE r.run_id = a.run_id AND a.status IN ('queued', 'running')
          AND a.source_name IN (SELECT source_name FROM hurt)
        RETURNING r.run_id
    ), dropped AS (
        UPDATE etl_batches SET state = 'dropped', lease_expires_at = NULL
        WHERE state IN ('extracted', 'normalized') AND run_id IN (SELECT run_id FROM ended)
        RETURNING batch_id
    ), emptied AS (
        DELETE FROM staged_items WHERE batch_id IN (SELECT batch_id FROM dropped)
    )
    INSERT INTO etl_run_events (run_id, event, detail)
    SELECT run_id, 'failed', jsonb_build_object('code', 'raw_ids_repeated') FROM ended
"""

# Without what an answer or a whole file is known by: the source is read, and every record compared with what is served.
# Only files that grow go on, where they ended before.
GO_BACK = """
    UPDATE etl_checkpoints c
    SET run_id = NULL, version = c.version + 1, updated_at = clock_timestamp(),
        value = CASE WHEN first.known THEN
            CASE WHEN first.checkpoint_before ? 'kept' THEN
                jsonb_set(first.checkpoint_before, '{kept}', jsonb_build_object('files', (
                    SELECT coalesce(jsonb_object_agg(file.key, file.value), '{}'::jsonb)
                    FROM jsonb_each(coalesce(first.checkpoint_before #> '{kept,files}', '{}'::jsonb)) AS file
                    WHERE coalesce((file.value ->> 'appending')::boolean, false))))
            ELSE first.checkpoint_before END END
    FROM (SELECT DISTINCT ON (source_name) * FROM hurt ORDER BY source_name, at) first
    WHERE c.source_name = first.source_name
"""

# What takes long is found out before anything is locked.
IN_USE = """
    CREATE TEMPORARY TABLE in_use ON COMMIT DROP AS
    SELECT greatest((SELECT max(raw_data_id) FROM unified_items), (SELECT max(raw_data_id) FROM rejected_records),
                    (SELECT max(last_raw_id) FROM etl_batches)) AS highest
"""
# To alter a sequence is to lock it: nobody draws between the look at what is in use and the new start.
LOCK_SEQUENCE = "ALTER SEQUENCE raw_data_id_seq OWNED BY NONE"
SET_SEQUENCE = """
    SELECT setval('raw_data_id_seq', greatest((SELECT last_value FROM raw_data_id_seq), (SELECT highest FROM in_use),
                                              (SELECT max(id) FROM raw_data)) + 1)
"""


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    op.execute("SET LOCAL lock_timeout = '60s'")
    # All that was ever stored is looked through.
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute(HURT)
    op.execute(IN_USE)
    op.execute(WAIT)
    op.execute(LOCK_RUNS)
    op.execute(END_RUNS)
    op.execute(GO_BACK)
    op.execute(LOCK_SEQUENCE)
    op.execute(SET_SEQUENCE)
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '300s'")
    # The copies that are healed are no news.
    op.execute("INSERT INTO etl_looks (name, seen) SELECT 'raw_ids', coalesce(max(batch_id), 0) FROM etl_batches")


def downgrade() -> None:
    op.execute("DROP TABLE etl_looks")
    op.execute("DROP TABLE etl_alarms")
