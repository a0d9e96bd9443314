"""What must hold once everything is quiet, whatever happened before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.faults.truth import Truth
    from bench.rig import Service


@dataclass
class Verdict:
    """All zero, and no complaints, is what is promised."""

    records: int = 0
    lost: int = 0
    doubled: int = 0
    stale: int = 0
    stuck: int = 0
    complaints: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.stale or self.stuck or self.complaints)


def judge(service: Service, truth: Truth) -> Verdict:
    """Compare every record of every source with what is stored."""
    verdict = Verdict(records=truth.sources * truth.records)
    good, bad = truth.good(), truth.bad()
    for name in truth.names:
        found = service.sql(f"SELECT external_id, amount::bigint FROM unified_items WHERE source_name = '{name}'")
        times = Counter(row[0] for row in found)
        amounts = dict(found)
        verdict.lost += len(good.keys() - times.keys())
        verdict.doubled += sum(count - 1 for count in times.values())
        verdict.stale += sum(amounts[key] != amount for key, amount in good.items() if key in amounts)
        rejected = service.sql(
            f"SELECT DISTINCT external_id FROM rejected_records WHERE source_name = '{name}' AND state = 'open'"
        )
        verdict.lost += len(bad - set(rejected))
        verdict.complaints += [f"{name}: {key} is an item" for key in bad & times.keys()][:3]
    _check_runs(service, verdict)
    return verdict


def _check_runs(service: Service, verdict: Verdict) -> None:
    verdict.stuck = service.sql("SELECT count(*) FROM etl_runs WHERE status IN ('queued', 'running')")[0]
    checks = {
        "leases left on runs": "SELECT count(*) FROM etl_runs WHERE lease_expires_at IS NOT NULL",
        "open batches": "SELECT count(*) FROM etl_batches WHERE state IN ('extracted', 'normalized')",
        "staged rows left": "SELECT count(*) FROM staged_items s JOIN etl_batches b USING (batch_id) WHERE b.state = 'loaded'",
        "runs whose counts do not add up": """
            SELECT count(*) FROM etl_runs WHERE status IN ('success', 'partial') AND records_extracted <>
            records_inserted + records_updated + records_unchanged + records_duplicate + records_failed""",
        "slots with two runs": """
            SELECT count(*) FROM (SELECT 1 FROM etl_runs WHERE scheduled_for IS NOT NULL
            GROUP BY source_name, scheduled_for HAVING count(*) > 1) t""",
        "records quarantined as poison": "SELECT count(*) FROM rejected_records WHERE rule = 'poison'",
    }
    errors = """SELECT error_code, count(*), min(error_message) FROM etl_runs
        WHERE status IN ('failed', 'partial') AND error_code <> 'records_rejected' GROUP BY 1"""
    verdict.complaints += [
        f"runs ended with {code}: {count} ({message})" for code, count, message in service.sql(errors)
    ]
    for what, query in checks.items():
        if count := service.sql(query)[0]:
            verdict.complaints.append(f"{what}: {count}")
