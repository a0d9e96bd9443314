"""What runs say of their data.

Counts of rows that are no records, of corrections and of rejects that came again; which version of our reader took a
batch; what the fields of a source are like; all that is wrong with a rejected record.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ZERO = sa.text("'0'")
COLUMNS = {
    # Feeds that there are keep the ids that they have.
    "sources": (("id_form", sa.Text(), sa.text("'resolved'")),),
    "etl_runs": (
        ("rows_skipped", sa.BigInteger(), ZERO),
        ("records_corrected", sa.BigInteger(), ZERO),
        ("read_all", sa.Boolean(), sa.false()),
    ),
    "etl_batches": (
        ("records_corrected", sa.BigInteger(), ZERO),
        ("records_failed_again", sa.BigInteger(), ZERO),
        ("records_unmapped", sa.BigInteger(), ZERO),
        ("observed", JSONB(), None),
        ("reader", sa.Integer(), None),
    ),
    "rejected_records": (
        ("errors", JSONB(), None),
        ("attempts", sa.Integer(), sa.text("1")),
        ("reason", sa.Text(), None),
    ),
}
# Releases before this one know nothing of a case that goes on, nor of `errors`: what they put into quarantine takes the
# place of the open case of its record.
ONE_CASE = """
    CREATE FUNCTION close_older_case() RETURNS trigger LANGUAGE plpgsql
        -- by the index of cases, as soon as a table that was empty when this was planned is not any more
        SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $$
    BEGIN
        UPDATE rejected_records SET state = 'superseded'
        WHERE source_name = NEW.source_name AND state = 'open'
          AND coalesce('=' || external_id, encode(content_hash, 'hex'))
            = coalesce('=' || NEW.external_id, encode(NEW.content_hash, 'hex'));
        RETURN NEW;
    END $$;
    CREATE TRIGGER close_older_case BEFORE INSERT ON rejected_records FOR EACH ROW
        WHEN (NEW.errors IS NULL AND NEW.state = 'open') EXECUTE FUNCTION close_older_case()
"""
SEEN = (("created_at", "first_seen_at"), ("updated_at", "last_seen_at"))


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for name, kind, default in columns:
            op.add_column(table, sa.Column(name, kind, server_default=default, nullable=default is None))
    for old, new in SEEN:
        op.alter_column("rejected_records", old, new_column_name=new)
    _allow("'open', 'redriven', 'discarded', 'superseded'")
    op.create_check_constraint(op.f("ck_sources_id_form"), "sources", "id_form IN ('plain', 'resolved')")
    op.execute(ONE_CASE)
    now = sa.text("clock_timestamp()")
    op.create_table(
        "source_fields",
        sa.Column("source_name", sa.Text(), primary_key=True),
        sa.Column("scope", sa.Text(), primary_key=True),
        sa.Column("field", sa.Text(), primary_key=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.Column("kinds", JSONB(), nullable=False),
        sa.Column("sample", sa.Text()),
        sa.Column("drift", JSONB()),
        sa.Column("mapping_version", sa.Integer(), nullable=False),
        sa.CheckConstraint("scope IN ('item', 'record')", name=op.f("ck_source_fields_scope")),
    )
    drift = sa.text("drift IS NOT NULL")
    op.create_index("ix_source_fields_drift", "source_fields", ["source_name"], postgresql_where=drift)


def downgrade() -> None:
    op.drop_table("source_fields")
    op.execute("DROP TRIGGER close_older_case ON rejected_records; DROP FUNCTION close_older_case()")
    op.execute("UPDATE rejected_records SET state = 'redriven' WHERE state = 'superseded'")
    _allow("'open', 'redriven', 'discarded'")
    for old, new in SEEN:
        op.alter_column("rejected_records", new, new_column_name=old)
    for table, columns in COLUMNS.items():
        for name, _, _ in reversed(columns):
            op.drop_column(table, name)


def _allow(states: str) -> None:
    op.drop_constraint(op.f("ck_rejected_records_state"), "rejected_records")
    op.create_check_constraint(
        op.f("ck_rejected_records_state"), "rejected_records", f"state IN ({states})", postgresql_not_valid=True
    )
