"""Sources with a known truth: every record that is served, what must become of it, and a web that misbehaves."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

from testkit.fake_server import FakeServer, Request, Response, as_json

DUPLICATE_EVERY = 100
VANISH_EVERY = 4


@dataclass
class Truth:
    """So many sources with so many records each, in the version of the current round."""

    sources: int
    records: int
    seed: int
    round: int = 1
    trouble: float = 0.01
    page: int = 500
    bad_every: int = 1000
    every: str = ""
    # Seconds before each answer.
    delay: float = 0.0
    # What else the sources declare; which field is the title, where that is declared; and whether in every other round a
    # part of the records is not there.
    more: str = ""
    title: str = ""
    vanishing: bool = False

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._lock = threading.Lock()
        self.requests = 0
        self.refused = 0

    @property
    def names(self) -> list[str]:
        return [f"s{number}" for number in range(self.sources)]

    def document(self, server: FakeServer) -> str:
        """The sources file."""
        lines = ["sources:"]
        for name in self.names:
            server.on(f"/{name}", self._answer)
            request = f"request: {{url: '{server.url}/{name}'}}"
            schedule = f"schedule: {{every: {self.every}}}, " if self.every else ""
            paginate = "paginate: {style: page, max_pages: 100000}"
            mapping = f", map: {{external_id: id, title: {self.title}, amount: price}}" if self.title else ""
            rest = f"{request}, {paginate}{mapping}{self.more}"
            lines.append(f"  - {{name: {name}, type: api, timeout: 3s, {schedule}{rest}}}")
        return "\n".join(lines) + "\n"

    def good(self) -> dict[str, int]:
        """The ids that must be served by every source, and their amount."""
        return {f"r{n}": n + self.round for n in range(self.records) if not self._is_bad(n) and not self._is_gone(n)}

    def bad(self) -> set[str]:
        """The ids that must be in quarantine."""
        return {f"r{n}" for n in range(self.records) if self._is_bad(n) and not self._is_gone(n)}

    def _answer(self, asked: Request) -> Response:
        with self._lock:
            self.requests += 1
            if self._dice.random() < self.trouble:
                self.refused += 1
                return Response(status=self._dice.choice((429, 500, 503)))
        time.sleep(self.delay)
        first = (int(asked.query["page"]) - 1) * self.page
        last = min(first + self.page, self.records)
        page = [self._record(n) for n in range(first, last) if not self._is_gone(n)]
        page += [self._record(n) for n in range(first, last, DUPLICATE_EVERY) if not self._is_gone(n)]
        return as_json(page)

    def _record(self, number: int) -> dict[str, object]:
        return {
            "id": f"r{number}",
            "name": f"record {number}",
            "price": f"dear {self.round}" if self._is_bad(number) else number + self.round,
        }

    def _is_gone(self, number: int) -> bool:
        return self.vanishing and self.round % 2 == 1 and number % VANISH_EVERY == 1

    def _is_bad(self, number: int) -> bool:
        return number % self.bad_every == self.bad_every - 1
