"""Time that passes for those who hold a run or a batch."""

from __future__ import annotations

from testkit.runner import SourceRunner


def expire_leases(runner: SourceRunner) -> None:
    """All leases end, as if who holds them had died a while ago."""
    for table in ("etl_runs", "etl_batches"):
        runner.sql(f"UPDATE {table} SET lease_expires_at = now() - interval '1 s' WHERE lease_expires_at IS NOT NULL")
