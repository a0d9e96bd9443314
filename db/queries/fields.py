"""What the fields of a source have been like, and what is told when a run finds them otherwise."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.events import record_event
from db.queries.versions import BOUND, Bound
from db.statement import text
from etl.mapping.observe import merged
from etl.records import Observed
from etl.runs.drift import MIN_RECORDS, Fields, Known, Policy, holding, judge, remembered

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy import Connection, Row, TextClause

    from db.queries.batches import BatchClaim
    from etl.records import Nulled
    from etl.runs.drift import Finding

# What one run tells of.
_MOST_TOLD = 20

# Of the records of the first batches a sample is enough; whether a field of an item is there is asked of all.
_OBSERVED = text("""
    SELECT CASE WHEN row_number() OVER (ORDER BY number, part) <= 50 THEN observed
        ELSE (observed - 'keys') || '{"sampled": 0}' END
    FROM etl_batches WHERE run_id = :run_id AND observed IS NOT NULL ORDER BY number, part
""")
# What the items have been like says nothing about another mapping.
_KNOWN = text("""
    SELECT f.scope, f.field, f.seen, f.kinds, f.sample, f.drift FROM source_fields f
    WHERE f.source_name = :source_name AND (f.scope = 'record' OR f.mapping_version = :mapping_version)
    FOR UPDATE
""")
_SINCE_MAPPED = text("""
    SELECT f.scope, f.field, f.seen, f.kinds, f.sample, f.drift FROM source_fields f
    WHERE f.source_name = :source_name AND f.mapping_version >= :mapped_since
""")


def look_at_fields(connection: Connection, run_id: UUID) -> None:
    """Compare what a run has stored with what the source was like, tell what is otherwise, and remember it."""
    found = connection.execute(_OBSERVED, {"run_id": run_id}).scalars()
    observed = merged(msgspec.convert(one, Observed) for one in found)
    for nulled in list(observed.nulled.values())[:_MOST_TOLD]:
        record_event(connection, run_id, "nulled", **msgspec.structs.asdict(nulled), message=_told(nulled))
    if observed.records < MIN_RECORDS and not any(observed.forms.values()):
        return
    source = connection.execute(_SOURCE, {"run_id": run_id}).first()
    if source is None:
        return
    bound = Bound(*source.bound)
    values = _values(source.source_name, bound)
    before = _known(connection.execute(_known_of(bound), values))
    declared = bound.config.get("map") or {}
    findings = judge(observed, before, declared)
    held = [] if Policy.of(bound.config) is Policy.REPORT else holding(observed, before, declared)
    # What held a batch is told with it.
    for finding in [one for one in findings if one not in held][:_MOST_TOLD]:
        record_event(connection, run_id, "drift", **asdict(finding), message=finding.message)
    # What is kept out, or fails the run, does not become usual.
    if not held and (observed.records >= MIN_RECORDS or findings):
        _keep(connection, values, remembered(observed, before, findings))


def find_drift(connection: Connection, claim: BatchClaim, observed: Observed) -> list[Finding]:
    """What of a batch is not as it was, where that keeps it from being loaded."""
    bound = Bound(claim.config, claim.mapping_version, claim.mapped_since)
    before = _known(connection.execute(_SINCE_MAPPED, _values(claim.source_name, bound)))
    return holding(observed, before, bound.config.get("map") or {})


def _values(source_name: str, bound: Bound) -> dict[str, Any]:
    return {"source_name": source_name, **{name: getattr(bound, name) for name in ("mapping_version", "mapped_since")}}


def _known_of(bound: Bound) -> TextClause:
    """What has been seen; where drift is not let through, since the mapping was declared: a new one accepts it."""
    return _KNOWN if Policy.of(bound.config) is Policy.REPORT else _SINCE_MAPPED


def _told(nulled: Nulled) -> str:
    return f"{nulled.field}: {nulled.count} values were left out by the rule {nulled.rule}, such as {nulled.sample!r}"


_SOURCE = text(f"""
    SELECT r.source_name, {BOUND} AS bound FROM etl_runs r JOIN sources s ON s.name = r.source_name
    WHERE r.run_id = :run_id
""")


def _known(rows: Iterable[Row[Any]]) -> Fields:
    fields = Fields()
    for row in rows:
        scope = fields.items if row.scope == "item" else fields.keys
        scope[row.field] = Known(row.seen, row.kinds, row.sample, row.drift)
    return fields


def _keep(connection: Connection, values: dict[str, Any], fields: Fields) -> None:
    rows = [
        {"scope": scope, "field": name, **asdict(known)}
        for scope, known_fields in (("item", fields.items), ("record", fields.keys))
        for name, known in sorted(known_fields.items())
    ]
    connection.execute(_FORGET, {**values, "keys": list(fields.keys)})
    connection.execute(_KEEP, {**values, "rows": msgspec.json.encode(rows).decode()})


_FORGET = text("""
    DELETE FROM source_fields WHERE source_name = :source_name AND CASE scope
        WHEN 'item' THEN mapping_version <> :mapping_version ELSE field <> ALL (:keys) END
""")
_KEEP = text("""
    INSERT INTO source_fields AS f (source_name, scope, field, seen, kinds, sample, drift, mapping_version)
    SELECT :source_name, scope, field, seen, kinds, sample, drift, :mapping_version
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS given(
        scope text, field text, seen double precision, kinds jsonb, sample text, drift jsonb)
    ON CONFLICT (source_name, scope, field) DO UPDATE SET seen = excluded.seen, kinds = excluded.kinds,
        sample = excluded.sample, drift = excluded.drift, mapping_version = excluded.mapping_version,
        last_seen_at = CASE WHEN excluded.kinds <> f.kinds THEN clock_timestamp() ELSE f.last_seen_at END
""")


def tell_drift(connection: Connection, run_id: UUID, source_name: str, findings: list[Finding]) -> None:
    """Tell of what keeps a batch from being loaded, and mark the fields that are not there, until they are again."""
    for finding in findings[:_MOST_TOLD]:
        record_event(connection, run_id, "drift", **asdict(finding), message=finding.message)
        if finding.lasts:
            connection.execute(_MARK, {"source_name": source_name, "field": finding.field, "message": finding.message})


_MARK = text("""
    UPDATE source_fields SET drift = coalesce(drift, '{}') || jsonb_build_object('message', CAST(:message AS text))
    WHERE source_name = :source_name AND scope = 'item' AND field = :field
""")


def drifted(connection: Connection) -> list[str]:
    """The sources of which a mapped field is not there any more."""
    return list(connection.execute(_DRIFTED).scalars())


_DRIFTED = text("""
    SELECT DISTINCT f.source_name FROM source_fields f JOIN sources s ON s.name = f.source_name
    WHERE f.drift IS NOT NULL AND f.drift ? 'message' AND f.mapping_version = s.mapping_version AND s.enabled
    ORDER BY 1 LIMIT 100
""")
