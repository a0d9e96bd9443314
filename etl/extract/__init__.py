"""Fetching: one extractor per source type, all giving pages of records in source order.

`open_source` picks the extractor, `context` is what it works with, `batching` cuts its pages into batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.declare.model import interval_of
from etl.declare.source import ApiSource, CsvSource
from etl.extract.api import ApiExtractor
from etl.extract.csv_download import CsvDownload
from etl.extract.csv_files import CsvFiles
from etl.extract.feed import FeedExtractor
from etl.http.target import target_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from etl.declare.source import AnySource
    from etl.extract.context import Context
    from etl.http.target import PreparedRequest
    from etl.records import Page, Position

    class Extractor(Protocol):
        """Gives pages from a position on."""

        def pages(self, position: Position) -> Iterator[Page]:
            """The pages from `position.cursor` (None: the start) to the end of the source."""


def target_for(source: AnySource, secrets: dict[str, str]) -> PreparedRequest | None:
    """The first request of a source with its secrets, None for files."""
    return None if source.request is None else target_of(source.request, secrets, interval_of(source.rate))


def open_source(source: AnySource, target: PreparedRequest | None, context: Context) -> Extractor:
    """The extractor of a source; `target` is its first request, None for files."""
    if target is None:
        assert isinstance(source, CsvSource)
        return CsvFiles(source, context)
    if isinstance(source, CsvSource):
        return CsvDownload(source, target, context)
    return (
        ApiExtractor(source, target, context)
        if isinstance(source, ApiSource)
        else FeedExtractor(source, target, context)
    )
