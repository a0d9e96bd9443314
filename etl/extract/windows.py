"""A range of the past, as one source: its windows one after the other, each read as the source itself would be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import to_builtins
from msgspec.structs import replace

from etl.declare.source import SINCE, ApiSource, CsvSource, zone_of
from etl.records import Cursor, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.declare.source import AnySource
    from etl.extract import Extractor
    from etl.records import Position
    from etl.runs.backfills import Span, Window


class WindowCursor(Cursor, frozen=True, omit_defaults=False):
    """A place in a window, and how many records and pages of the window come before it."""

    window: int = 0
    inner: dict[str, Any] | None = None
    records: int = 0
    pages: int = 0


class WindowDone(Protocol):
    """Is told of a window that was read to its end, before it is stored: its number from 0 on, and what was in it."""

    def __call__(self, number: int, window: Window, records: int, pages: int) -> None:
        """Take note of it."""


class WindowsExtractor:
    """Reads the windows of a span."""

    def __init__(self, span: Span, open_window: Callable[[Window], Extractor], done: WindowDone) -> None:
        self._span = span
        self._open = open_window
        self._done = done

    def pages(self, position: Position) -> Iterator[Page]:
        """The pages of all windows from the position on."""
        cursor = WindowCursor.of(position) or WindowCursor()
        inner = replace(position, cursor=cursor.inner)
        for number in range(cursor.window, self._span.windows):
            yield from self._window(cursor, inner)
            cursor, inner = WindowCursor(number + 1), replace(position, cursor=None, done=0, validator=None, tries=0)

    def _window(self, at: WindowCursor, position: Position) -> Iterator[Page]:
        window = self._span.window(at.window)
        for page in self._open(window).pages(position):
            here = replace(at, inner=to_builtins(page.cursor))
            records, pages = at.records + len(page.records), at.pages + 1
            following: WindowCursor | None = replace(at, inner=None, records=records, pages=pages)
            if page.following is not None:
                following = replace(here, inner=to_builtins(page.following), records=records, pages=pages)
            elif at.window + 1 < self._span.windows:
                following = WindowCursor(at.window + 1)
            else:
                following = None
            if page.following is None:
                self._done(at.window, window, records, pages)
            yield replace(page, cursor=here, following=following, watermark=None, kept=None, known=False)
            at = replace(at, records=records, pages=pages)


def source_of(source: AnySource, window: Window) -> AnySource:
    """The source with the ends of a window in its request, and without a watermark.

    What holds a place for the watermark is left out.
    """
    assert isinstance(source, ApiSource | CsvSource)
    assert source.request is not None
    assert source.backfill is not None
    backfill, zone = source.backfill, zone_of(source)
    ends = (window.start, window.end, zone)
    params = {name: value for name, value in source.request.params.items() if SINCE not in str(value)}
    body = source.request.body if backfill.body is None else backfill.filled(backfill.body, *ends)
    request = replace(source.request, params=params | backfill.filled(backfill.params, *ends), body=body)
    plain: dict[str, Any] = {"incremental": None} if isinstance(source, ApiSource) else {}
    return replace(source, request=request, **plain)
