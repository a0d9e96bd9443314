"""HTTP of a trial: as of a run, and the beginnings of what is answered are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from etl.http.client import MAX_IN_MEMORY, HttpClient
from etl.http.download import MAX_DOWNLOAD
from etl.secrets import hide

if TYPE_CHECKING:
    from pathlib import Path

    from etl.http.attempt import FetchResult
    from etl.http.target import PreparedRequest
    from etl.records import Validator
    from etl.reporter import Asked

# What is shown of a body: bytes; and which headers.
MOST_SHOWN = 2000
MOST_OF_HEADER = 1000
SHOWN_HEADERS = frozenset(
    {
        *("content-type", "content-length", "content-encoding", "link", "etag", "last-modified", "cache-control"),
        *("retry-after", "ratelimit-remaining", "x-ratelimit-remaining", "x-total-count", "x-total-pages"),
    }
)


@dataclass(frozen=True)
class Answered:
    """The beginning of an answer, without secrets, and to which request: its place among all that were made.

    Of the first answer there are its bytes as they came, all if there are not too many.
    """

    number: int
    headers: dict[str, str]
    beginning: str
    whole: bytes


class TrialClient(HttpClient):
    """Keeps the beginning of each answer."""

    answers: list[Answered]
    requests: list[Asked]

    def fetch(
        self,
        target: PreparedRequest,
        timeout: float,
        file: BinaryIO,
        tries: int = 0,
        known: Validator | None = None,
        *,
        limit: int = MAX_DOWNLOAD,
    ) -> FetchResult:
        """Fetch as a run does. Raises as that does."""
        answer = super().fetch(target, timeout, file, tries, known, limit=limit)
        file.seek(0)
        self._keep(answer, file.read(MAX_IN_MEMORY if answer.size <= MAX_LOOKED_AT else MOST_SHOWN))
        return answer

    def download(
        self, target: PreparedRequest, timeout: float, path: Path, tries: int = 0, known: Validator | None = None
    ) -> FetchResult:
        """Download as a run does. Raises as that does."""
        answer = super().download(target, timeout, path, tries, known)
        with path.open("rb") as file:
            self._keep(answer, file.read(MOST_SHOWN))
        return answer

    def _keep(self, answer: FetchResult, body: bytes) -> None:
        headers = {
            name: hide(value)[:MOST_OF_HEADER] for name, value in answer.headers.items() if name in SHOWN_HEADERS
        }
        beginning = hide(body[:MOST_SHOWN].decode("utf-8", "replace"))
        whole = b"" if self.answers else body
        self.answers.append(Answered(len(self.requests) - 1, headers, beginning, whole))


# An answer that is not larger is looked into for what it says beside the records: bytes.
MAX_LOOKED_AT = 1024 * 1024
