"""RSS and Atom feeds: one request, one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from etl.declare.duration import seconds
from etl.declare.revision import NEW_FORM
from etl.feeds.parse import Feed, FeedJob
from etl.feeds.parser import parser
from etl.http.freshness import clamp
from etl.records import BadRecord, Cursor, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.declare.source import RssSource
    from etl.extract.context import Context
    from etl.http.attempt import FetchResult
    from etl.http.target import PreparedRequest
    from etl.records import Position, Record

# Feeds are read into memory, twice; the largest in use are a third of this: bytes.
MAX_FEED = 32 * 1024 * 1024


class FeedCursor(Cursor, frozen=True, omit_defaults=False):
    """The one page of a feed."""

    at: None = None


class FeedExtractor:
    """Reads a whole feed as one page."""

    def __init__(self, source: RssSource, target: PreparedRequest, context: Context) -> None:
        """`target` is the source's request with its secrets."""
        self._source = source
        self._target = target
        self._context = context

    def pages(self, position: Position) -> Iterator[Page]:
        """The one page of the feed, oldest entry first, so that the newest of a repeated id wins."""
        context, target = self._context, self._target
        # Part of what came before may be stored already: then nothing is `unchanged`.
        is_fresh = position.cursor is None
        answer, body = context.http.get(
            target, seconds(self._source.timeout), position.tries, context.known if is_fresh else None, limit=MAX_FEED
        )
        if is_fresh and context.is_known(target, answer):
            context.reporter.answered(answer.fresh, answer.moved_to)
            kept = context.kept(target, answer)
            yield Page(FeedCursor(), [], None, size=answer.size, kept=kept, known=True)
            return
        feed = self._parse(answer, body)
        context.reporter.answered(answer.fresh, answer.moved_to)
        context.reporter.keeps_quiet(feed.quiet_hours, feed.quiet_days, clamp(feed.interval))
        for warning in feed.warnings:
            context.reporter.warn("feed_warning", warning)
        # What stands behind a mistake may not have been found.
        is_doubtful = self._source.full_snapshot and not feed.is_well_formed
        if is_doubtful:
            context.reporter.warn("deletions_held", "no item was deleted: the feed is not well-formed")
        page = Page(FeedCursor(), _records(feed), None, answer.digest, answer.size, kept=context.kept(target, answer))
        yield replace(page, known=is_doubtful)

    def _parse(self, answer: FetchResult, body: bytes) -> Feed:
        job = FeedJob(
            body=body,
            content_type=answer.headers.get("content-type", ""),
            base=answer.base,
            now=self._context.now.timestamp(),
            entry_id=self._source.entry_id,
            id_form=self._source.id_form or NEW_FORM,
            timezone=self._source.timezone,
            dates=self._source.dates,
            timezone_names=self._source.timezone_names,
        )
        return parser().parse(job, self._context.reporter.alive)


def _records(feed: Feed) -> list[Record]:
    bad = [BadRecord(entry.raw.encode("utf-8", "replace"), "", entry.rule, entry.message) for entry in feed.bad]
    return [*feed.entries, *bad]
