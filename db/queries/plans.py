"""Plans of replays: stored records mapped, compared with what is served, and nothing written but the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.models.quality import CASE
from db.queries.batches import copy_staged
from db.queries.cases import has_cases
from db.queries.raw_rows import RawRows, read_rows
from db.queries.replays import check_replayable, next_rows
from db.queries.versions import DECLARED
from db.statement import text
from etl.errors import UnknownPlanError
from etl.item import COLUMNS
from etl.runs.messages import PlanMessage
from etl.runs.plans import MAX_ATTEMPTS, MOST_SAMPLES, SHOWN, Diff, Sample, added_sample, changed_sample
from etl.runs.replays import MOST_RECORDS, RawCursor, Scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy import Connection, Row

    from etl.records import Mapped, Reject, StagedItem, StoredRecord

    MapRows = Callable[[dict[str, Any], list[StoredRecord]], Mapped]

# One that has not moved for so long is sent for again: seconds.
GAP = 30


_QUEUE = text(f"""
    INSERT INTO etl_plans (plan_id, source_name, scope, document, mapping_version)
    SELECT :plan_id, s.name, CAST(:scope AS jsonb), {DECLARED}, s.mapping_version FROM sources s WHERE s.name = :name
""")
# So many are counted; of more the sample is larger than asked for.
MOST_COUNTED = 1_000_000
_COUNT = text("SELECT count(*) FROM (SELECT 1 FROM raw_data WHERE source_name = :name LIMIT :most) stored")


def queue_plan(connection: Connection, plan_id: UUID, source_name: str, scope: Scope, sample: int | None) -> None:
    """Queue a plan for a source that there is, over all that is meant, or over about so many records of it.

    Raises:
        NothingToReplayError: nothing is stored of what is asked for.
    """
    check_replayable(connection, source_name, scope)
    if sample is not None:
        stored = connection.execute(_COUNT, {"name": source_name, "most": MOST_COUNTED}).scalar_one()
        scope = msgspec.structs.replace(scope, every=max(1, stored // sample))
    values = {"plan_id": plan_id, "name": source_name, "scope": msgspec.json.encode(scope).decode()}
    connection.execute(_QUEUE, values)


def get_plan(connection: Connection, plan_id: UUID) -> Row[Any]:
    """A plan, with what is known so far.

    Raises:
        UnknownPlanError: there is none with this id, or it was a day ago.
    """
    row = connection.execute(_SHOWN, {"plan_id": plan_id}).first()
    if row is None:
        raise UnknownPlanError(f"there is no plan {plan_id}; plans are kept for a day")
    return row


_SHOWN = text("""
    SELECT plan_id, source_name, state, message, mapping_version, scope, found, created_at, touched_at
    FROM etl_plans WHERE plan_id = :plan_id
""")


def begin_plan(connection: Connection, plan_id: UUID) -> bool:
    """Begin a slice; False where there is nothing to do any more, as after too many that got nowhere."""
    return bool(connection.execute(_BEGIN, {"plan_id": plan_id, "most": MAX_ATTEMPTS}).scalar())


_BEGIN = text("""
    UPDATE etl_plans SET attempt = attempt + 1, touched_at = clock_timestamp(),
        state = CASE WHEN attempt < :most THEN 'running' ELSE 'failed' END,
        message = CASE WHEN attempt < :most THEN message
            ELSE 'several workers in a row died or gave up on it; the log has the details' END
    WHERE plan_id = :plan_id AND state IN ('queued', 'running')
    RETURNING state = 'running'
""")


@dataclass(frozen=True)
class _Plan:
    """A plan that is locked: nobody else works on it until the transaction ends."""

    plan_id: UUID
    source_name: str
    scope: dict[str, Any]
    document: dict[str, Any]
    after: int
    found: dict[str, Any]


def step_plan(connection: Connection, plan_id: UUID, map_rows: MapRows) -> bool:
    """Look at the next rows; False when there are no more, or someone else is at it."""
    row = connection.execute(_LOCK, {"plan_id": plan_id}).first()
    if row is None:
        return False
    plan = _Plan(**row._asdict())
    scope = msgspec.convert(plan.scope, Scope, strict=False)
    following = next_rows(connection, plan.source_name, scope, RawCursor(plan.after), MOST_RECORDS)
    found = msgspec.convert(plan.found, Diff)
    if ids := following.ids:
        rows = RawRows(plan_id, ids[0], ids[-1], ids, following.since, following.until)
        mapped = map_rows(plan.document, read_rows(connection, rows))
        found = found.plus(_compare(connection, plan.source_name, mapped))
    values = {
        "plan_id": plan_id,
        "after": plan.after if following.last is None else following.last,
        "found": msgspec.json.encode(found).decode(),
    }
    connection.execute(_ADVANCE, values)
    if following.is_end:
        connection.execute(_END, {"plan_id": plan_id})
    return not following.is_end


_LOCK = text("""
    SELECT plan_id, source_name, scope, document, after, found FROM etl_plans
    WHERE plan_id = :plan_id AND state = 'running' FOR UPDATE SKIP LOCKED
""")
_ADVANCE = text("""
    UPDATE etl_plans SET after = :after, found = CAST(:found AS jsonb), attempt = 0, touched_at = clock_timestamp()
    WHERE plan_id = :plan_id
""")
_END = text("UPDATE etl_plans SET state = 'done', touched_at = clock_timestamp() WHERE plan_id = :plan_id")


def _compare(connection: Connection, source_name: str, mapped: Mapped) -> Diff:
    diff = Diff(records=len(mapped.staged) + len(mapped.rejects))
    if mapped.staged:
        diff = diff.plus(_items(connection, source_name, mapped.staged))
    return diff.plus(_rejects(connection, source_name, mapped.rejects)) if mapped.rejects else diff


def _items(connection: Connection, source_name: str, staged: list[StagedItem]) -> Diff:
    """By PostgreSQL, and by way of a table like that of a load: what it would refuse or take for equal shows."""
    # As for others again: what is found by now is small.
    connection.execute(text("SET LOCAL enable_hashjoin = DEFAULT; SET LOCAL enable_mergejoin = DEFAULT"))
    connection.execute(text("CREATE TEMP TABLE planned (LIKE staged_items) ON COMMIT DROP"))
    copy_staged(connection, "planned", (0, 0), staged)
    connection.execute(text("ANALYZE planned"))
    values = {"source_name": source_name, "most": MOST_SAMPLES}
    counts = connection.execute(_COUNTS, values).one()._asdict()
    seen = connection.execute(_SAMPLES, values).all()
    mended = connection.execute(_MENDED, values).scalar_one() if has_cases(connection, source_name) else 0
    connection.execute(text("DROP TABLE planned"))
    added = [added_sample(row.external_id, row.after) for row in seen if row.before is None]
    changed = [changed_sample(row.external_id, row.before, row.after) for row in seen if row.before]
    return Diff(
        added=counts.pop("added"),
        changed=counts.pop("changed"),
        unchanged=counts.pop("unchanged"),
        mended=mended,
        fields={name: count for name, count in counts.items() if count},
        samples={kind: found for kind, found in (("added", added), ("changed", changed)) if found},
    )


_OF_ITEM, _OF_RECORD = (", ".join(f"{table}.{name}" for name in COLUMNS) for table in ("i", "s"))
_IS_CHANGED = f"i.id IS NOT NULL AND ({_OF_ITEM}) IS DISTINCT FROM ({_OF_RECORD})"
# The items are looked up by arrays of ids, as a load does: to go through all of a large source would take far longer.
_LATEST = """
    WITH latest AS (SELECT DISTINCT ON (external_id) * FROM planned ORDER BY external_id, raw_data_id DESC),
    served AS (
        SELECT * FROM unified_items
        WHERE source_name = :source_name AND external_id = ANY (ARRAY(SELECT external_id FROM latest)))
"""
_MET = "FROM latest s LEFT JOIN served i ON i.external_id = s.external_id"
_COUNTS = text(f"""
    {_LATEST}
    SELECT count(*) FILTER (WHERE i.id IS NULL) AS added, count(*) FILTER (WHERE {_IS_CHANGED}) AS changed,
        count(*) FILTER (WHERE i.id IS NOT NULL AND NOT ({_IS_CHANGED})) AS unchanged,
        {
    ", ".join(
        f"count(*) FILTER (WHERE i.id IS NOT NULL AND i.{name} IS DISTINCT FROM s.{name}) AS {name}" for name in COLUMNS
    )
}
    {_MET}
""")
_MENDED = text("""
    SELECT count(*) FROM planned s WHERE s.raw_data_id = ANY (ARRAY(
        SELECT r.raw_data_id FROM rejected_records r WHERE r.source_name = :source_name AND r.state = 'open'))
""")
_AS_JSON = "jsonb_build_object({})"
_SAMPLES = text(f"""
    {_LATEST}, seen AS (
        SELECT s.external_id, i.id IS NULL AS is_added,
            CASE WHEN i.id IS NOT NULL THEN {_AS_JSON.format(", ".join(f"'{name}', i.{name}" for name in COLUMNS))} END
                AS before,
            {_AS_JSON.format(", ".join(f"'{name}', s.{name}" for name in COLUMNS))} AS after,
            row_number() OVER (PARTITION BY i.id IS NULL ORDER BY s.raw_data_id) AS number
        {_MET} WHERE i.id IS NULL OR ({_IS_CHANGED})
    )
    SELECT external_id, before, after FROM seen WHERE number <= :most ORDER BY is_added, number
""")


def _rejects(connection: Connection, source_name: str, rejects: list[Reject]) -> Diff:
    keys = [_key(reject) for reject in rejects]
    values = {"source_name": source_name, "keys": msgspec.json.encode(keys).decode()}
    known = set(connection.execute(_OPEN, values).scalars())
    causes: dict[str, int] = {}
    for reject in rejects:
        cause = f"{reject.faults[0].field}: {reject.faults[0].rule}"
        causes[cause] = causes.get(cause, 0) + 1
    newly = [reject for reject, key in zip(rejects, keys, strict=True) if key not in known]
    return Diff(
        newly_rejected=len(newly),
        still_rejected=len(rejects) - len(newly),
        causes=causes,
        samples={"newly_rejected": [_rejected(reject) for reject in newly[:MOST_SAMPLES]]} if newly else {},
    )


def _key(reject: Reject) -> str:
    external_id = reject.record.external_id
    return reject.content_hash.hex() if external_id is None else "=" + external_id


def _rejected(reject: Reject) -> Sample:
    fault = reject.faults[0]
    value = None if fault.value is None else fault.value[:SHOWN]
    return Sample(
        reject.record.external_id, field=fault.field, rule=fault.rule, value=value, message=fault.message[: 2 * SHOWN]
    )


_OPEN = text(f"""
    SELECT key FROM jsonb_array_elements_text(CAST(:keys AS jsonb)) AS key
    WHERE EXISTS (SELECT 1 FROM rejected_records r
                  WHERE r.source_name = :source_name AND r.state = 'open' AND ({CASE}) = key)
""")


def due_plans(connection: Connection) -> list[PlanMessage]:
    """Plans whose message was lost, or whose worker died; they count as sent for now."""
    return [PlanMessage(plan_id) for plan_id in connection.execute(_DUE, {"gap": GAP}).scalars()]


_DUE = text("""
    UPDATE etl_plans SET touched_at = clock_timestamp()
    WHERE state IN ('queued', 'running') AND touched_at < clock_timestamp() - make_interval(secs => :gap)
    RETURNING plan_id
""")


def purge_plans(connection: Connection, retention: timedelta) -> int:
    """Delete old plans; how many."""
    query = text("DELETE FROM etl_plans WHERE created_at < clock_timestamp() - make_interval(secs => :seconds)")
    return int(connection.execute(query, {"seconds": retention.total_seconds()}).rowcount)
