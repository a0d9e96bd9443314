"""What is to be told to people: what was seen, what stands, messages, their ways, and what is muted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert_incidents",
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("stands", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_members", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "told_times", postgresql.ARRAY(postgresql.TIMESTAMP(timezone=True)), server_default="{}", nullable=False
        ),
        sa.Column("incident_id", sa.UUID(), nullable=True),
        sa.Column("affected", sa.Integer(), server_default="0", nullable=False),
        sa.Column("names", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.CheckConstraint("told IN ('nothing', 'firing', 'flapping')", name=op.f("ck_alert_incidents_told")),
        sa.PrimaryKeyConstraint("cause", name=op.f("pk_alert_incidents")),
    )
    op.create_table(
        "alert_members",
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("cause", "name", name=op.f("pk_alert_members")),
    )
    op.create_index("ix_alert_members_source_name", "alert_members", ["source_name"])
    op.create_table(
        "alert_mutes",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("scope IN ('all', 'cause', 'source', 'tag')", name=op.f("ck_alert_mutes_scope")),
        sa.PrimaryKeyConstraint("scope", "subject", name=op.f("pk_alert_mutes")),
    )
    op.create_table(
        "alert_outbox",
        sa.Column("alert_id", sa.UUID(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alert_outbox")),
    )
    op.create_index("ix_alert_outbox_created_at", "alert_outbox", ["created_at", "alert_id"])
    op.create_table(
        "alert_sightings",
        sa.Column("sighting_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("size_flag", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sighting_id", name=op.f("pk_alert_sightings")),
    )
    op.create_index("ix_alert_sightings_source_name", "alert_sightings", ["source_name"])
    op.create_table(
        "alert_deliveries",
        sa.Column("alert_id", sa.UUID(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("taken_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'sent', 'failed')", name=op.f("ck_alert_deliveries_state")),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alert_outbox.alert_id"], name=op.f("fk_alert_deliveries_alert_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("alert_id", "destination", name=op.f("pk_alert_deliveries")),
    )
    op.create_index(
        "ix_alert_deliveries_pending",
        "alert_deliveries",
        ["destination", "created_at"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_alert_deliveries_sent_at", "alert_deliveries", ["destination", "sent_at"])


def downgrade() -> None:
    for table in (
        *("alert_deliveries", "alert_sightings", "alert_outbox"),
        *("alert_mutes", "alert_members", "alert_incidents"),
    ):
        op.drop_table(table)
