"""What must hold once everything is quiet, whatever happened before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.faults.truth import Truth
    from testkit.service import Service


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

    def add(self, other: Verdict, where: str) -> None:
        """What is wrong there is wrong in all."""
        self.records = max(self.records, other.records)
        for name in ("lost", "doubled", "stale", "stuck"):
            if count := getattr(other, name):
                setattr(self, name, getattr(self, name) + count)
                self.complaints.append(f"{where}: {name} {count}")
        self.complaints += [f"{where}: {complaint}" for complaint in other.complaints]


def judge(service: Service, truth: Truth) -> Verdict:
    """Compare every record of every source with what is stored."""
    verdict = Verdict(records=truth.sources * truth.records)
    good, bad = truth.good(), truth.bad()
    for name in truth.names:
        found = service.sql(
            f"SELECT external_id, amount::bigint FROM unified_items WHERE source_name = '{name}' AND status = 'active'"
        )
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
        if truth.vanishing and (left := times.keys() - good.keys()):
            verdict.complaints.append(f"{name}: {len(left)} items are served that are gone")
    _check_runs(service, verdict)
    if truth.more:
        # Elsewhere items are taken away behind the service's back.
        _check_totals(service, verdict)
    return verdict


# What a batch may be halved to: one record of a million.
LONGEST_PART = 24


def judge_again(service: Service, truth: Truth, verdict: Verdict) -> None:
    """After one more undisturbed run: what is wrong now would stay wrong."""
    verdict.add(judge(service, truth), "after one more run")


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
        "batches stored after the cancel of their run": """
            SELECT count(*) FROM etl_batches b JOIN etl_runs r USING (run_id)
            WHERE r.status = 'cancelled' AND greatest(b.created_at, b.normalized_at, b.loaded_at) > r.completed_at""",
        "raw ids given twice": """
            SELECT count(*) FROM (SELECT 1 FROM raw_data GROUP BY id HAVING count(*) > 1) t""",
        "raw ids above the sequence's last": """
            SELECT count(*) FROM raw_data WHERE id > (SELECT last_value FROM raw_data_id_seq)""",
        "rows of another run within the ids of a batch": """
            SELECT count(*) FROM etl_batches b JOIN etl_runs r ON r.run_id = b.run_id AND r.lane <> 'replay'
            CROSS JOIN LATERAL (
                SELECT p.run_id, p.source_name FROM raw_data p
                WHERE p.id BETWEEN b.first_raw_id AND b.last_raw_id OFFSET 0  -- by the index, whatever the planner knows
            ) p WHERE p.source_name = b.source_name AND p.run_id <> b.run_id""",
        "batches halved without end": f"SELECT count(*) FROM etl_batches WHERE length(part) > {LONGEST_PART}",
        "records quarantined as poison": "SELECT count(*) FROM rejected_records WHERE rule = 'poison'",
    }
    errors = """SELECT error_code, count(*), min(error_message) FROM etl_runs
        WHERE status IN ('failed', 'partial') AND error_code NOT IN ('records_rejected', 'deletions_held') GROUP BY 1"""
    verdict.complaints += [
        f"runs ended with {code}: {count} ({message})" for code, count, message in service.sql(errors)
    ]
    for what, query in checks.items():
        if count := service.sql(query)[0]:
            verdict.complaints.append(f"{what}: {count}")


def _check_totals(service: Service, verdict: Verdict) -> None:
    query = """
        SELECT (SELECT count(*) FROM unified_items WHERE status = 'active')
            - (SELECT coalesce(sum(total_items), 0) FROM etl_checkpoints)
            - (SELECT coalesce(sum(coalesce(items_gained, records_inserted)), 0) FROM etl_batches
               WHERE NOT rolled_up AND state NOT IN ('extracted', 'normalized'))"""
    if off := service.sql(query)[0]:
        verdict.complaints.append(f"the totals are off by {off} items")
