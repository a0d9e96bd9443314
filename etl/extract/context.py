"""What an extractor works with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from etl.records import Kept, Validator
from etl.secrets import holds_secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from etl.files.opening import Opening
    from etl.http.attempt import FetchResult
    from etl.http.client import HttpClient
    from etl.http.target import PreparedRequest
    from etl.records import Checkpoint
    from etl.reporter import Reporter

# What a server's mark of an answer may have: characters.
MAX_MARK = 1000


@dataclass(frozen=True)
class Context:
    """The surroundings of one extraction.

    `scratch` is a path of this run's own for local copies; `roots` are the folders that file sources may read, `base`
    is where relative paths start from. `checkpoint` is what the last run left; `was_read` says that there was one
    which read all, whether what it left is of use or not. `opened` is told how a file of rows is written.
    """

    connect: Callable[[], HttpClient]
    reporter: Reporter
    scratch: Path
    roots: tuple[Path, ...]
    base: Path
    checkpoint: Checkpoint
    now: datetime
    was_read: bool = False
    opened: Callable[[Opening], None] = lambda _: None

    @cached_property
    def http(self) -> HttpClient:
        """Made when it is needed: files have no use for one."""
        return self.connect()

    @property
    def known(self) -> Validator | None:
        """What is known of the last answer."""
        return self.checkpoint.kept.validator

    def is_known(self, target: PreparedRequest, answer: FetchResult) -> bool:
        """True when an answer says just what the last one said, in so many words or not."""
        known = self.known
        same_body = known is not None and known.request == target.digest and known.digest == answer.digest
        return answer.unchanged or same_body

    def kept(self, target: PreparedRequest, answer: FetchResult) -> Kept:
        """What to know of this answer next time. A mark that the server no longer gives is forgotten."""
        if answer.unchanged:
            return Kept(validator=self.known)
        etag, modified = (_mark(answer.headers.get(name)) for name in ("etag", "last-modified"))
        return Kept(validator=Validator(target.digest, etag, modified, answer.digest))


def _mark(value: str | None) -> str | None:
    """A mark that can be kept and sent back: text of a line, that says no secret of ours back to us."""
    if value is None or len(value) > MAX_MARK or not value.isprintable() or holds_secret(value):
        return None
    return value
