"""States checked.

What a run, a batch and a rejected record may be is checked by the database too. A check is added without a look at the
rows that are there, and validated afterwards, which keeps nobody from writing; each in a transaction of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CHECKS = (
    (
        "etl_runs",
        "status",
        "status IN ('queued', 'running', 'success', 'partial', 'failed', 'cancelled', 'skipped')",
    ),
    ("etl_runs", "stage", "stage IN ('queued', 'extracting', 'waiting', 'loading', 'done')"),
    (
        "etl_runs",
        "trigger",
        "trigger IN ('schedule', 'api', 'cli', 'replay', 'redrive', 'backfill', 'upgrade')",
    ),
    ("etl_runs", "lane", "lane IN ('fetch', 'replay', 'backfill')"),
    ("etl_batches", "state", "state IN ('extracted', 'normalized', 'loaded', 'halved', 'dropped')"),
    ("rejected_records", "stage", "stage IN ('extract', 'normalize')"),
)

# Who waits for a table makes all others wait behind it, so the wait is short, and repeated.
_ADD = """
    DO $$ BEGIN
        FOR attempt IN 1..60 LOOP
            BEGIN
                SET LOCAL lock_timeout = '500ms';
                IF NOT EXISTS (SELECT 1 FROM pg_constraint
                               WHERE conname = '{name}' AND conrelid = '{table}'::regclass) THEN
                    ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID;
                END IF;
                RETURN;
            EXCEPTION WHEN lock_not_available THEN
                PERFORM pg_sleep(0.5);
            END;
        END LOOP;
        RAISE lock_not_available USING MESSAGE = 'lock timeout: {table} is in use';
    END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table, column, condition in CHECKS:
            name = f"ck_{table}_{column}"
            op.execute(_ADD.format(table=table, name=name, condition=condition))
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def downgrade() -> None:
    for table, column, _ in reversed(CHECKS):
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{column}")
