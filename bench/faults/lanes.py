"""What runs beside the usual ones, and what they do last, while things crash at points: replays, backfills, deletions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.faults.crashes import Crashes
from bench.faults.oracle import judge
from bench.faults.points import DATABASE_KINDS, PROCESS_KINDS
from bench.faults.strikes import DATABASE, PROCESS, Arrangement, Plan, strike_all

if TYPE_CHECKING:
    from concurrent.futures import Future

    from bench.faults.arena import Arena
    from bench.faults.oracle import Verdict

# So that a backfill of one window is all of a source, and what it finds can be told from what a run would.
BACKFILL = ", backfill: {params: {start: '{from}'}, window: 7d}"
SNAPSHOT = ", full_snapshot: true, max_deleted: 100"
# Mappings of which each makes all items anew.
TITLES = ("name", "id")
STAGES = ("normalize", "load", "closing")

_OLD_ITEMS = """
    SELECT count(*) FROM unified_items i JOIN sources s ON s.name = i.source_name
    WHERE i.mapping_version <> s.mapping_version"""
# The columns that no other lane may move.
_OF_FETCH = """
    SELECT coalesce(string_agg(ROW(c.source_name, c.value, c.version, c.run_id)::text, ' ' ORDER BY c.source_name), '')
    FROM etl_checkpoints c"""


def _begin_replay(crashes: Crashes) -> Future[None]:
    """Drive all records of all sources again, by another mapping."""
    truth = crashes.arena.truth
    truth.title = TITLES[truth.title == TITLES[0]]
    crashes.arena.declare()
    bodies = [{"source_name": name} for name in truth.names]
    return crashes.post_each("/replays", bodies, {202, 409})


def _begin_backfill(crashes: Crashes) -> Future[None]:
    """Fetch all records of all sources in a lane of their own."""
    span = {"from": "2026-01-01", "to": "2026-01-05"}
    bodies = [{"source_name": name, **span} for name in crashes.arena.truth.names]
    return crashes.post_each("/backfills", bodies, {202, 409})


def _old_items(crashes: Crashes) -> list[str]:
    old = crashes.sql(_OLD_ITEMS)[0]
    return [f"items of an older mapping: {old}"] if old else []


def _of_fetch(crashes: Crashes) -> Any:
    return crashes.sql(_OF_FETCH)[0]


def _lost(crashes: Crashes) -> list[str]:
    lost = judge(crashes.arena.service, crashes.arena.truth).lost
    return [f"{lost} items were deleted that are there"] if lost else []


REPLAYING = Arrangement("replaying", ("fetch",), _begin_replay, turns=False, check=_old_items, same=_of_fetch)
DRIVING = replace(REPLAYING, name="driving", stages=STAGES)
BACKFILLING = Arrangement("backfilling", ("fetch", "staging", *STAGES), _begin_backfill)
# A crash may empty the ids that were met: then the next run deletes. What is there is never deleted.
DELETING = Arrangement("deleting", ("deleting",), Crashes.ask, again=True, halfway=_lost)


def lanes(arena: Arena, one_of: int) -> Verdict:
    """PostgreSQL crashes, and the worker is killed, at points of replays and backfills."""
    arena.truth.more = BACKFILL
    arena.truth.title = TITLES[0]
    return _both(arena, (REPLAYING, DRIVING, BACKFILLING), one_of)


def deletions(arena: Arena, one_of: int) -> Verdict:
    """The same at the points of deleting: in every other round a part of the records is not there."""
    arena.truth.more = SNAPSHOT
    arena.truth.vanishing = True
    return _both(arena, (DELETING,), one_of)


def _both(arena: Arena, arrangements: tuple[Arrangement, ...], one_of: int) -> Verdict:
    arena.declare()
    verdict = strike_all(Plan(arrangements, DATABASE_KINDS, DATABASE, one_of), arena)
    arena.renew()
    verdict.add(strike_all(Plan(arrangements, PROCESS_KINDS, PROCESS, one_of), arena), "killed")
    return verdict
