"""Versions of sources, and which of them a run reads.

What there is becomes the first version that is kept. Which release read it is not known: the oldest is assumed.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

KEEP = """
    INSERT INTO source_versions (source_name, version, mapping_version, mapped_since, reader, made_by, document)
    SELECT name, version, mapping_version, mapping_version, 1, 'upgrade',
        CASE WHEN type = 'rss' THEN config || jsonb_build_object('id_form', id_form) ELSE config END
    FROM sources
"""


def upgrade() -> None:
    op.create_table(
        "source_versions",
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("mapping_version", sa.Integer(), nullable=False),
        sa.Column("mapped_since", sa.Integer(), nullable=False),
        sa.Column("reader", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("document", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("source_name", "version", name=op.f("pk_source_versions")),
    )
    op.execute(KEEP)
    op.add_column("etl_runs", sa.Column("source_version", sa.Integer(), nullable=True))
    op.add_column("etl_workers", sa.Column("reader", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("etl_workers", "reader")
    op.drop_column("etl_runs", "source_version")
    op.drop_table("source_versions")
