"""First tables.

Everything the service stores: sources, runs, batches, checkpoints, raw records, items and the quarantine.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE etl_checkpoints (
        source_name TEXT NOT NULL,
        source_type TEXT NOT NULL,
        kind TEXT,
        version BIGINT DEFAULT '0' NOT NULL,
        value JSONB,
        run_id UUID,
        last_success_at TIMESTAMP WITH TIME ZONE,
        last_failure_at TIMESTAMP WITH TIME ZONE,
        last_run_at TIMESTAMP WITH TIME ZONE,
        last_status TEXT,
        total_items BIGINT DEFAULT '0' NOT NULL,
        total_runs BIGINT DEFAULT '0' NOT NULL,
        total_success BIGINT DEFAULT '0' NOT NULL,
        total_partial BIGINT DEFAULT '0' NOT NULL,
        total_failed BIGINT DEFAULT '0' NOT NULL,
        total_extracted BIGINT DEFAULT '0' NOT NULL,
        total_seconds NUMERIC DEFAULT '0' NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        CONSTRAINT pk_etl_checkpoints PRIMARY KEY (source_name)
    )
    """,
    """
    CREATE TABLE etl_runs (
        run_id UUID NOT NULL,
        source_name TEXT NOT NULL,
        source_type TEXT,
        lane TEXT DEFAULT 'fetch' NOT NULL,
        trigger TEXT NOT NULL,
        status TEXT NOT NULL,
        stage TEXT NOT NULL,
        scheduled_for TIMESTAMP WITH TIME ZONE,
        slots_missed INTEGER DEFAULT '0' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE,
        completed_at TIMESTAMP WITH TIME ZONE,
        attempt INTEGER DEFAULT '0' NOT NULL,
        token BIGINT DEFAULT '0' NOT NULL,
        lease_expires_at TIMESTAMP WITH TIME ZONE,
        worker TEXT,
        not_before TIMESTAMP WITH TIME ZONE,
        dispatched_at TIMESTAMP WITH TIME ZONE,
        dispatch_count INTEGER DEFAULT '0' NOT NULL,
        claimed_at TIMESTAMP WITH TIME ZONE,
        position JSONB,
        batches INTEGER DEFAULT '0' NOT NULL,
        extracted_at TIMESTAMP WITH TIME ZONE,
        records_extracted BIGINT DEFAULT '0' NOT NULL,
        records_inserted BIGINT DEFAULT '0' NOT NULL,
        records_updated BIGINT DEFAULT '0' NOT NULL,
        records_unchanged BIGINT DEFAULT '0' NOT NULL,
        records_duplicate BIGINT DEFAULT '0' NOT NULL,
        records_failed BIGINT DEFAULT '0' NOT NULL,
        pages BIGINT DEFAULT '0' NOT NULL,
        bytes BIGINT DEFAULT '0' NOT NULL,
        error_code TEXT,
        error_message TEXT,
        checkpoint_before JSONB,
        checkpoint_after JSONB,
        rolled_up BOOLEAN DEFAULT false NOT NULL,
        CONSTRAINT pk_etl_runs PRIMARY KEY (run_id)
    )
    """,
    """
    CREATE INDEX ix_etl_runs_claimed ON etl_runs (dispatched_at) WHERE claimed_at IS NOT NULL
    """,
    """
    CREATE INDEX ix_etl_runs_dispatch ON etl_runs (dispatched_at) WHERE status IN ('queued', 'running')
    """,
    """
    CREATE INDEX ix_etl_runs_of_source ON etl_runs (source_name, created_at, run_id)
    """,
    """
    CREATE INDEX ix_etl_runs_recent ON etl_runs (created_at, run_id)
    """,
    """
    CREATE INDEX ix_etl_runs_rollup ON etl_runs (completed_at) WHERE NOT rolled_up
    """,
    """
    CREATE UNIQUE INDEX uq_etl_runs_active ON etl_runs (source_name, lane) WHERE status IN ('queued', 'running')
    """,
    """
    CREATE UNIQUE INDEX uq_etl_runs_slot ON etl_runs (source_name, scheduled_for) WHERE scheduled_for IS NOT NULL
    """,
    """
    CREATE TABLE etl_workers (
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        CONSTRAINT pk_etl_workers PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE raw_data (
        id BIGINT DEFAULT nextval('raw_data_id_seq'::regclass) NOT NULL,
        ingested_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        run_id UUID NOT NULL,
        source_type TEXT NOT NULL,
        source_name TEXT NOT NULL,
        source_id TEXT,
        raw_payload JSONB NOT NULL,
        content_hash BYTEA NOT NULL,
        CONSTRAINT pk_raw_data PRIMARY KEY (id, ingested_at)
    )
     PARTITION BY RANGE (ingested_at)
    """,
    """
    CREATE TABLE rejected_records (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        run_id UUID NOT NULL,
        source_name TEXT NOT NULL,
        source_type TEXT NOT NULL,
        external_id TEXT,
        content_hash BYTEA NOT NULL,
        raw_data_id BIGINT,
        raw_ingested_at TIMESTAMP WITH TIME ZONE,
        raw_bytes BYTEA,
        raw_truncated BOOLEAN DEFAULT false NOT NULL,
        stage TEXT NOT NULL,
        field TEXT NOT NULL,
        rule TEXT NOT NULL,
        value TEXT,
        message TEXT NOT NULL,
        mapping_version INTEGER NOT NULL,
        state TEXT DEFAULT 'open' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        CONSTRAINT pk_rejected_records PRIMARY KEY (id),
        CONSTRAINT ck_rejected_records_state CHECK (state IN ('open', 'redriven', 'discarded'))
    )
    """,
    """
    CREATE INDEX ix_rejected_records_open ON rejected_records (source_name, content_hash) WHERE state = 'open'
    """,
    """
    CREATE INDEX ix_rejected_records_run ON rejected_records (run_id)
    """,
    """
    CREATE TABLE sources (
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        config JSONB NOT NULL,
        mapping_version INTEGER DEFAULT '1' NOT NULL,
        version INTEGER DEFAULT '1' NOT NULL,
        enabled BOOLEAN NOT NULL,
        paused_until TIMESTAMP WITH TIME ZONE,
        next_run_at TIMESTAMP WITH TIME ZONE,
        not_before TIMESTAMP WITH TIME ZONE,
        origin TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        CONSTRAINT pk_sources PRIMARY KEY (name),
        CONSTRAINT ck_sources_name CHECK (name ~ '^[a-z0-9_]{1,100}$')
    )
    """,
    """
    CREATE INDEX ix_sources_due ON sources (next_run_at) WHERE enabled
    """,
    """
    CREATE UNLOGGED TABLE staged_items (
        batch_id BIGINT NOT NULL,
        token BIGINT NOT NULL,
        raw_data_id BIGINT NOT NULL,
        raw_ingested_at TIMESTAMP WITH TIME ZONE NOT NULL,
        external_id TEXT NOT NULL,
        content_hash BYTEA NOT NULL,
        metadata JSONB NOT NULL,
        title TEXT,
        description TEXT,
        category TEXT,
        url TEXT,
        image_url TEXT,
        author TEXT,
        amount NUMERIC,
        quantity NUMERIC,
        rating NUMERIC,
        tags TEXT[],
        published_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_staged_items PRIMARY KEY (batch_id, token, raw_data_id)
    )
    """,
    """
    CREATE TABLE unified_items (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        source_type TEXT NOT NULL,
        source_name TEXT NOT NULL,
        external_id TEXT NOT NULL,
        metadata JSONB DEFAULT '{}'::jsonb NOT NULL,
        status TEXT DEFAULT 'active' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        deleted_at TIMESTAMP WITH TIME ZONE,
        raw_data_id BIGINT NOT NULL,
        raw_ingested_at TIMESTAMP WITH TIME ZONE NOT NULL,
        run_id UUID NOT NULL,
        content_hash BYTEA NOT NULL,
        mapping_version INTEGER NOT NULL,
        change_xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
        search TSVECTOR GENERATED ALWAYS AS (setweight(to_tsvector('simple'::regconfig, "left"(COALESCE(title, ''::text), 1000)), 'A'::"char") || setweight(to_tsvector('simple'::regconfig, "left"(COALESCE(description, ''::text), 24000)), 'B'::"char")) STORED,
        title TEXT,
        description TEXT,
        category TEXT,
        url TEXT,
        image_url TEXT,
        author TEXT,
        amount NUMERIC,
        quantity NUMERIC,
        rating NUMERIC,
        tags TEXT[],
        published_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_unified_items PRIMARY KEY (id),
        CONSTRAINT uq_unified_items_source_name_external_id UNIQUE (source_name, external_id),
        CONSTRAINT ck_unified_items_external_id CHECK (octet_length(external_id) <= 1000),
        CONSTRAINT ck_unified_items_status CHECK (status IN ('active', 'deleted'))
    )
    """,
    """
    CREATE INDEX ix_unified_items_created ON unified_items (created_at, id)
    """,
    """
    CREATE INDEX ix_unified_items_published ON unified_items (published_at, id)
    """,
    """
    CREATE INDEX ix_unified_items_search ON unified_items USING gin (source_name, search)
    """,
    """
    CREATE INDEX ix_unified_items_source ON unified_items (source_name, created_at, id)
    """,
    """
    CREATE INDEX ix_unified_items_updated ON unified_items (updated_at, id)
    """,
    """
    CREATE TABLE etl_batches (
        batch_id BIGINT GENERATED ALWAYS AS IDENTITY,
        run_id UUID NOT NULL,
        source_name TEXT NOT NULL,
        number INTEGER NOT NULL,
        part TEXT DEFAULT '' NOT NULL,
        first_raw_id BIGINT,
        last_raw_id BIGINT,
        state TEXT NOT NULL,
        token BIGINT DEFAULT '0' NOT NULL,
        attempt INTEGER DEFAULT '0' NOT NULL,
        lease_expires_at TIMESTAMP WITH TIME ZONE,
        not_before TIMESTAMP WITH TIME ZONE,
        dispatched_at TIMESTAMP WITH TIME ZONE,
        dispatch_count INTEGER DEFAULT '0' NOT NULL,
        claimed_at TIMESTAMP WITH TIME ZONE,
        staged_count BIGINT,
        staged_token BIGINT,
        mapping_version INTEGER,
        records_extracted BIGINT DEFAULT '0' NOT NULL,
        records_inserted BIGINT DEFAULT '0' NOT NULL,
        records_updated BIGINT DEFAULT '0' NOT NULL,
        records_unchanged BIGINT DEFAULT '0' NOT NULL,
        records_duplicate BIGINT DEFAULT '0' NOT NULL,
        records_failed BIGINT DEFAULT '0' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        normalized_at TIMESTAMP WITH TIME ZONE,
        loaded_at TIMESTAMP WITH TIME ZONE,
        rolled_up BOOLEAN DEFAULT false NOT NULL,
        CONSTRAINT pk_etl_batches PRIMARY KEY (batch_id),
        CONSTRAINT uq_etl_batches_run_id_number_part UNIQUE (run_id, number, part),
        CONSTRAINT fk_etl_batches_run_id FOREIGN KEY(run_id) REFERENCES etl_runs (run_id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX ix_etl_batches_claimed ON etl_batches (dispatched_at) WHERE claimed_at IS NOT NULL
    """,
    """
    CREATE INDEX ix_etl_batches_dispatch ON etl_batches (dispatched_at) WHERE state IN ('extracted', 'normalized')
    """,
    """
    CREATE INDEX ix_etl_batches_open ON etl_batches (run_id) WHERE state IN ('extracted', 'normalized')
    """,
    """
    CREATE INDEX ix_etl_batches_rollup ON etl_batches (batch_id) WHERE NOT rolled_up AND NOT (state IN ('extracted', 'normalized'))
    """,
    """
    CREATE TABLE etl_run_events (
        event_id BIGINT GENERATED ALWAYS AS IDENTITY,
        run_id UUID NOT NULL,
        at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        event TEXT NOT NULL,
        detail JSONB DEFAULT '{}'::jsonb NOT NULL,
        CONSTRAINT pk_etl_run_events PRIMARY KEY (event_id),
        CONSTRAINT fk_etl_run_events_run_id FOREIGN KEY(run_id) REFERENCES etl_runs (run_id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX ix_etl_run_events_run ON etl_run_events (run_id, event_id)
    """,
)

# Months are added ahead of time by the service; the default partition keeps a record that came too early or too late.
PARTITIONS = """
DO $$
DECLARE month date := date_trunc('month', now());
BEGIN
    FOR ahead IN 0..2 LOOP
        EXECUTE format(
            'CREATE TABLE raw_data_%s PARTITION OF raw_data FOR VALUES FROM (%L) TO (%L)',
            to_char(month + make_interval(months => ahead), 'YYYY_MM'),
            ((month + make_interval(months => ahead))::timestamp AT TIME ZONE 'UTC'),
            ((month + make_interval(months => ahead + 1))::timestamp AT TIME ZONE 'UTC')
        );
    END LOOP;
    CREATE TABLE raw_data_default PARTITION OF raw_data DEFAULT;
END $$
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gin")
    op.execute("CREATE SEQUENCE raw_data_id_seq")
    for statement in TABLES:
        op.execute(statement)
    op.execute(PARTITIONS)
    op.execute(
        "ALTER TABLE staged_items SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000)"
    )


def downgrade() -> None:
    for table in (
        "etl_workers",
        "rejected_records",
        "unified_items",
        "staged_items",
        "raw_data",
        "etl_checkpoints",
        "etl_run_events",
        "etl_batches",
        "etl_runs",
        "sources",
    ):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP SEQUENCE raw_data_id_seq")
