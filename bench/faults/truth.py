"""Sources with a known truth: every record that is served, what must become of it, and a web that misbehaves."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

from bench.outside import Answered, Asked, Outside, as_json

PAGE = 500
BAD_EVERY = 1000
DUPLICATE_EVERY = 100


@dataclass
class Truth:
    """So many sources with so many records each, in the version of the current round."""

    sources: int
    records: int
    seed: int
    round: int = 1
    trouble: float = 0.01

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._lock = threading.Lock()
        self.requests = 0
        self.refused = 0

    @property
    def names(self) -> list[str]:
        return [f"s{number}" for number in range(self.sources)]

    def document(self, server: Outside) -> str:
        """The sources file."""
        lines = ["sources:"]
        for name in self.names:
            server.on(f"/{name}", self._answer)
            request = f"request: {{url: '{server.url}/{name}'}}"
            lines.append(
                f"  - {{name: {name}, type: api, timeout: 3s, {request}, paginate: {{style: page, max_pages: 100000}}}}"
            )
        return "\n".join(lines) + "\n"

    def good(self) -> dict[str, int]:
        """The ids that must be served by every source, and their amount."""
        return {f"r{n}": n + self.round for n in range(self.records) if n % BAD_EVERY != BAD_EVERY - 1}

    def bad(self) -> set[str]:
        """The ids that must be in quarantine."""
        return {f"r{n}" for n in range(self.records) if n % BAD_EVERY == BAD_EVERY - 1}

    def _answer(self, asked: Asked) -> Answered:
        with self._lock:
            self.requests += 1
            if self._dice.random() < self.trouble:
                self.refused += 1
                return Answered(status=self._dice.choice((429, 500, 503)))
        first = (int(asked.query["page"]) - 1) * PAGE
        page = [self._record(n) for n in range(first, min(first + PAGE, self.records))]
        page += [self._record(n) for n in range(first, min(first + PAGE, self.records), DUPLICATE_EVERY)]
        return as_json(page)

    def _record(self, number: int) -> dict[str, object]:
        bad = number % BAD_EVERY == BAD_EVERY - 1
        return {
            "id": f"r{number}",
            "name": f"record {number}",
            "price": f"dear {self.round}" if bad else number + self.round,
        }
