"""Fetching: one extractor per source type, all giving pages of records in source order.

`open_source` picks the extractor; `batching` cuts its pages into batches. HTTP, its retries and its limits are in
`http`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.extract.api import ApiExtractor
from etl.extract.csv import CsvExtractor
from etl.extract.feed import FeedExtractor
from etl.extract.http import target_of
from etl.source import ApiSource, CsvSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Protocol

    from etl.extract.http import HttpClient
    from etl.records import Page, Position
    from etl.source import AnySource

    class Extractor(Protocol):
        """Gives pages from a position on."""

        def pages(self, position: Position) -> Iterator[Page]:
            """The pages from `position.cursor` (None: the start) to the end of the source."""


def open_source(
    source: AnySource, http: HttpClient, secrets: dict[str, str], scratch: Path, roots: tuple[Path, ...], base: Path
) -> Extractor:
    """The extractor of a source.

    Args:
        source: what to extract.
        http: makes the requests.
        secrets: the values of the secrets the source names.
        scratch: a path of this run's own, for a local copy of what was downloaded.
        roots: the folders that file sources may read.
        base: the folder that relative paths start from.
    """
    target = None if source.request is None else target_of(source.request, secrets)
    if isinstance(source, CsvSource):
        return CsvExtractor(source, http, target, scratch, roots, base)
    assert target is not None
    return ApiExtractor(source, http, target) if isinstance(source, ApiSource) else FeedExtractor(source, http, target)
