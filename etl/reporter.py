"""What the fetching of a source tells its caller on the way, and asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from etl.errors import ETLError
    from etl.runs.share import Pace


class Asked(msgspec.Struct, frozen=True):
    """An HTTP request that was made: what was asked, without secrets, and what came of it.

    `at` is when it began, in seconds since 1970. It took `seconds` until `bytes` of a body had come in. `attempt` is
    the number of the try; without an answer there is an `error` and no `status`.
    """

    at: float
    method: str
    url: str
    status: int | None
    bytes: int
    seconds: float
    attempt: int
    error: str | None


class Reporter(Protocol):
    """The caller, as extractors and the HTTP client know it. Any call may end the work with an error of its own."""

    @property
    def has_stored(self) -> bool:
        """Whether the run has something to show already."""

    @property
    def pace(self) -> Pace:
        """How patient an attempt may be; it may change with each answer."""

    def alive(self) -> None:
        """Work that takes long goes on; called often."""

    def keep(self, seconds: float) -> None:
        """Something begins, or goes on, that may take so long; the caller keeps what it holds for that time."""

    def may_go_on(self) -> bool:
        """Whether a download may last longer than the slice."""

    def warn(self, code: str, message: str) -> None:
        """Something an operator should know, though the run goes on."""

    def asked(self, request: Asked) -> None:
        """A request was made, each time that one is."""

    def retrying(self, error: ETLError, tries: int, seconds: float) -> None:
        """After an error, the next of so many tries comes in so many seconds."""

    def answered_after(self, seconds: float) -> None:
        """A whole answer came in quickly, and began after so many seconds."""

    def answered(self, fresh: float, moved_to: str | None) -> None:
        """An answer stays fresh for some seconds, or came from another address for good."""

    def keeps_quiet(self, hours: list[int], days: list[int], interval: float) -> None:
        """The source asks not to be polled in these hours (0 to 23, UTC), on these days (0 is Monday), and more often.

        `interval` is in seconds. What an earlier answer asked for holds until this is called again.
        """
