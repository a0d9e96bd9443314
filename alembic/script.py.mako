"""${message}

The previous release keeps running while this is applied: add first, remove one release later. Locks are waited for at
most 5 s, so a table in use is altered in small steps.
"""

from __future__ import annotations

from alembic import op

revision = "${up_revision}"
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
