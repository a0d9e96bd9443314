"""The requests of a slice, until they are stored with what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.requests import note_requests

if TYPE_CHECKING:
    from etl.reporter import Asked
    from worker.lease import Lease

# So many are kept before they are stored by themselves.
MOST_HELD = 100


class RequestLog:
    """What was asked since something was stored last."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._asked: list[Asked] = []

    def add(self, request: Asked) -> None:
        """Keep one."""
        self._asked.append(request)
        if len(self._asked) >= MOST_HELD:
            self.store()

    def take(self) -> list[Asked]:
        """All of them, for whoever stores them."""
        asked, self._asked = self._asked, []
        return asked

    def store(self) -> None:
        """Store those that nobody has taken."""
        if asked := self.take():
            self._lease.transact(note_requests, self._lease.claim.run_id, asked)
