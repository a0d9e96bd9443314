"""What fails a batch.

Since when a batch or the extraction of a run fails of the database itself, and a batch of what: such failures are not held
against them for some time.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("etl_batches", sa.Column("failing_since", sa.DateTime(timezone=True)))
    op.add_column("etl_batches", sa.Column("failure", sa.Text()))
    op.add_column("etl_runs", sa.Column("failing_since", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("etl_runs", "failing_since")
    op.drop_column("etl_batches", "failure")
    op.drop_column("etl_batches", "failing_since")
