"""Nobody looks for marks by their horizon any more."""

from __future__ import annotations

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_mirror_marks_horizon")


def downgrade() -> None:
    op.execute("CREATE INDEX IF NOT EXISTS ix_mirror_marks_horizon ON mirror_marks (horizon, at)")
