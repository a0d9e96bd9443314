"""${message}

The previous release keeps running while this is applied: add first, remove one release later. Nothing that keeps others
from writing is held for more than a moment: checks are added NOT VALID and validated afterwards, indexes of large tables
are made CONCURRENTLY, each in an `autocommit_block` of its own.
"""

from __future__ import annotations

from alembic import op
${"import sqlalchemy as sa\n" if "sa." in (upgrades or "") + (downgrades or "") else ""}
revision = "${up_revision}"
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
