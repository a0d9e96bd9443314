"""Ids on their way: those in batches of a run that are stored and not yet loaded.

What such an id says now is about to change, so a record of it is never `unchanged`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Pending:
    """The ids of open batches, by the batch's number. At most as many as there may be open batches."""

    def __init__(self, batches: dict[int, frozenset[str]]) -> None:
        """`batches` are those that are open now."""
        self._batches = batches

    def add(self, number: int, ids: Iterable[str]) -> None:
        """A batch was stored."""
        self._batches[number] = frozenset(ids)

    def keep(self, numbers: Collection[int]) -> None:
        """Forget the batches that are not among these, the open ones."""
        self._batches = {number: ids for number, ids in self._batches.items() if number in numbers}

    def without(self, external_ids: list[str]) -> list[str]:
        """Those of the ids that are not on their way, in the same order."""
        met = set[str]().union(*(ids.intersection(external_ids) for ids in self._batches.values()))
        return [external_id for external_id in external_ids if external_id not in met] if met else external_ids
