"""Checkpoints: where a run starts, and what it leaves to the next one."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from etl.outcome import Status
from etl.records import Checkpoint, Kept, Position

if TYPE_CHECKING:
    from etl.outcome import Outcome, Tally


def start_of(position: Position, checkpoint: Checkpoint, config: str, mapping: int) -> Position:
    """Where a slice begins: the run's position, or the checkpoint, if they belong to these settings."""
    if position.config == config:
        return position
    watermark = checkpoint.watermark if checkpoint.config == config else None
    return Position(config=config, mapping=mapping, watermark=watermark)


def is_outdated(position: Position, checkpoint: Checkpoint, config: str) -> bool:
    """Whether the source has to be read from its start because its settings are no longer those that were read by."""
    return position.config != config and bool(position.config or checkpoint.config not in {"", config})


def usable(checkpoint: Checkpoint, config: str, mapping: int) -> Checkpoint:
    """What the last run left, as far as it is good for these settings and this mapping."""
    return checkpoint if (checkpoint.config, checkpoint.mapping) == (config, mapping) else Checkpoint()


class Marks(Enum):
    """What becomes of the marks by which an answer or a whole file is known to be unchanged."""

    KEPT = "kept"
    FORGOTTEN = "forgotten"


def left_behind(outcome: Outcome, tally: Tally) -> Checkpoint | Marks:
    """What the next run starts from: a new checkpoint, or the old one, with its marks or without.

    A run whose extraction broke off leaves the old one: pages that were not read may hold older cursor values. If it
    has stored something, it has changed what is served, and what the run before it knew of an answer or a whole file no
    longer says that nothing is new.
    """
    position = tally.position
    if tally.was_read(outcome) and (position.watermark is not None or position.kept is not None):
        return _checkpoint(position, is_partial=outcome.status is Status.PARTIAL)
    return Marks.FORGOTTEN if tally.counts.extracted else Marks.KEPT


def _checkpoint(position: Position, *, is_partial: bool) -> Checkpoint:
    """After rejects, what is unchanged is not skipped next time, or the source would look well again.

    Only the watermark and files that grow go on where they ended.
    """
    kept = position.kept or Kept()
    if is_partial:
        kept = Kept(files={name: mark for name, mark in kept.files.items() if mark.appending})
    return Checkpoint(
        kind="watermark" if position.watermark is not None else "kept",
        config=position.config,
        mapping=position.mapping,
        watermark=position.watermark,
        kept=kept,
    )
