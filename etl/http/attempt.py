"""What one attempt asks, where the body of its answer goes, and what is known of that answer then."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from etl.http.body import Sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import requests

    from etl.http.download import Part
    from etl.http.limit import TimeLimit
    from etl.http.target import PreparedRequest
    from etl.records import Validator


@dataclass(frozen=True)
class FetchResult:
    """A complete response.

    `base` is where its relative links start from, `fresh` the seconds it stays fresh for, `moved_to` the address that
    permanent redirects led to. A 304 is `unchanged` and has no body.
    """

    base: str
    headers: dict[str, str]
    size: int = 0
    digest: str = ""
    fresh: float = 0.0
    moved_to: str | None = None
    unchanged: bool = False


Opener: TypeAlias = "Callable[[requests.Response], AbstractContextManager[Sink]]"


def into(file: BinaryIO, limit: int) -> Opener:
    """A body of at most `limit` bytes goes into a file, from its start."""
    return lambda _: nullcontext(Sink(file, limit))


@dataclass(frozen=True)
class Attempt:
    """A request, and where its body goes: `open` is called once the answer is good. `number` is that of the try."""

    target: PreparedRequest
    limit: TimeLimit
    open: Opener
    known: Validator | None = None
    part: Part | None = None
    number: int = 1

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask for the rest, or for a change only, byte for byte as the server gave their values."""
        if self.part is not None and self.part.size:
            return self.part.conditions
        if self.known is None:
            return {}
        given = {"If-None-Match": self.known.etag, "If-Modified-Since": self.known.last_modified}
        return {name: value for name, value in given.items() if value}

    def signed(self, authorization: str) -> Attempt:
        """The same with a token."""
        headers = {**self.target.secret_headers, "Authorization": authorization}
        return replace(self, target=replace(self.target, secret_headers=headers))
