"""REST APIs: pages of JSON, fetched one by one."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from etl.declare.duration import seconds
from etl.declare.paging import NoPaging
from etl.declare.source import times_of
from etl.errors import FetchError, RefusedError
from etl.extract.document import STREAM_OVER, Document, open_document
from etl.extract.pager import ApiCursor, Pager, is_past_the_last
from etl.extract.watermark import Since, Watermark
from etl.files.space import Copy
from etl.http.attempt import FetchResult
from etl.records import Kept, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.declare.source import ApiSource, Incremental
    from etl.extract.context import Context
    from etl.http.target import PreparedRequest
    from etl.records import Position, Record, Records

# The largest page that may be read in pieces: bytes.
MAX_PAGE = 2 * 1024 * 1024 * 1024
_CHUNK = 1024 * 1024
# What servers say to a cursor that they no longer know.
_EXPIRED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


class ApiExtractor:
    """Reads pages to the end."""

    def __init__(self, source: ApiSource, target: PreparedRequest, context: Context) -> None:
        """`target` is the source's request with its secrets."""
        self._source = source
        self._target = target
        self._context = context
        self._copies = PageCopies(context)
        self._pager = Pager(source.paginate, target)
        self._watermark = None if source.incremental is None else self._make_watermark(source, source.incremental)

    def _make_watermark(self, source: ApiSource, incremental: Incremental) -> Watermark:
        moment = times_of(source)
        return Watermark(incremental, moment, self._context.now, self._context.reporter.warn)

    def pages(self, position: Position) -> Iterator[Page]:
        """Pages from the position on. A cursor that the server has forgotten starts the run anew, once."""
        cursor = ApiCursor.of(position)
        if cursor is None:
            yield from self._from(self._pager.start(position.watermark or None), position)
            return
        pages = self._from(cursor, position)
        try:
            first = next(pages)
        except RefusedError as error:
            if error.status not in _EXPIRED or cursor.restarted:
                raise
            self._context.reporter.warn("cursor_expired", f"the run starts again: {error.message}")
            self._pager = Pager(self._source.paginate, self._target)
            yield from self._from(self._pager.start(cursor.since, restarted=True), position)
            return
        yield first
        yield from pages

    def _from(self, cursor: ApiCursor, position: Position) -> Iterator[Page]:
        watermark = position.watermark
        begun = _Begun(position.validator, position.tries, is_start=position.cursor is None)
        while True:
            self._pager.check(cursor)
            try:
                with self._fetched(cursor, begun) as (target, answer, file):
                    page = self._page(cursor, target, answer, file, watermark, begun.tries)
                    yield page
            except RefusedError as error:
                if not is_past_the_last(self._source.paginate, cursor, error.status):
                    raise
                yield Page(cursor, [], None, kept=Kept())
                return
            self._copies.remove(answer)
            if not isinstance(page.following, ApiCursor):
                return
            watermark, cursor, begun = page.watermark or watermark, page.following, _Begun()

    @contextlib.contextmanager
    def _fetched(self, cursor: ApiCursor, begun: _Begun) -> Iterator[tuple[PreparedRequest, FetchResult, BinaryIO]]:
        """A page, fetched; a large one that an earlier slice has begun is read from the copy that it left."""
        since = self._watermark.since(cursor.since) if self._watermark else Since()
        target = self._pager.request(cursor, since)
        if begun.validator and (copied := self._copies.answer(begun.validator)):
            with self._copies.body(begun.validator) as copy:
                yield target, copied, copy
            return
        with tempfile.SpooledTemporaryFile(max_size=STREAM_OVER) as spool:
            file = cast(BinaryIO, spool)
            # Part of what came before may be stored already: then nothing is `unchanged`.
            known = self._context.known if begun.is_start else None
            timeout = seconds(self._source.timeout)
            answer = self._context.http.fetch(target, timeout, file, begun.tries, known, limit=MAX_PAGE)
            if begun.is_start and self._context.is_known(target, answer):
                answer = replace(answer, unchanged=True)
            elif answer.size > STREAM_OVER:
                self._copies.keep(answer, file)
            # Where a page has moved to says nothing about the pages after it.
            is_alone = isinstance(self._source.paginate, NoPaging) and self._watermark is None
            self._context.reporter.answered(answer.fresh, answer.moved_to if is_alone else None)
            yield target, answer, file

    def _page(
        self,
        cursor: ApiCursor,
        target: PreparedRequest,
        answer: FetchResult,
        file: BinaryIO,
        watermark: str | None,
        tries: int,
    ) -> Page:
        if answer.unchanged:
            known = replace(answer, unchanged=answer.digest == "")
            return Page(cursor, [], None, size=answer.size, kept=self._context.kept(target, known), known=True)
        success = self._source.success
        others = [*self._pager.paths, *([success] if success else [])]
        try:
            document = open_document(file, answer.size, self._source, others, self._context.reporter.alive)
        except FetchError as error:
            self._context.http.reject(target, error, tries)
        return self._read(cursor, target, answer, document, watermark)

    def _read(
        self, cursor: ApiCursor, target: PreparedRequest, answer: FetchResult, document: Document, watermark: str | None
    ) -> Page:
        if len(document.records):
            self._pager.check_body(answer.digest)
        following = self._pager.following(cursor, answer, document)
        # Only an answer that was the whole run can tell the next run that nothing is new.
        is_whole = following is None and cursor.number == 1
        kept = self._context.kept(target, answer) if is_whole else Kept()
        records = self._wanted(document.records)
        highest = self._watermark.highest(self._living(records), watermark) if self._watermark else None
        return Page(cursor, records, following, answer.digest, answer.size, highest, kept)

    def _living(self, records: Records) -> Iterator[Record]:
        """The records, with a sign of life now and then."""
        for number, record in enumerate(records):
            if number % 1000 == 0:
                self._context.reporter.alive()
            yield record

    def _wanted(self, records: Records) -> Records:
        if self._watermark is None or self._source.incremental is None:
            return records
        if self._source.incremental.missing != "exclude":
            return records
        return _Chosen(records, self._watermark, sum(map(self._watermark.wanted, self._living(records))))


@dataclass(frozen=True)
class _Begun:
    """What an earlier slice knew of a page, and whether nothing came before it."""

    validator: str | None = None
    tries: int = 0
    is_start: bool = False


class PageCopies:
    """Large pages with what their answers said, by the hash of the body: they fill many batches, and so take slices."""

    def __init__(self, context: Context) -> None:
        self._scratch = context.scratch
        self._alive = context.reporter.alive

    def answer(self, digest: str) -> FetchResult | None:
        """The answer that gave the page, None where there is no copy."""
        about = self._path(digest, "about")
        return msgspec.json.decode(about.read_bytes(), type=FetchResult) if about.exists() else None

    def body(self, digest: str) -> BinaryIO:
        """The page."""
        return self._path(digest, "body").open("rb")

    def keep(self, answer: FetchResult, file: BinaryIO) -> None:
        """Copy a page."""
        file.seek(0)
        with self._path(answer.digest, "body").open("wb") as body:
            copy = Copy(body)
            while chunk := file.read(_CHUNK):
                self._alive()
                copy.write(chunk)
        self._path(answer.digest, "about").write_bytes(msgspec.json.encode(answer))

    def remove(self, answer: FetchResult) -> None:
        """The page is done."""
        if answer.size > STREAM_OVER:
            for part in ("about", "body"):
                self._path(answer.digest, part).unlink(missing_ok=True)

    def _path(self, digest: str, part: str) -> Path:
        return self._scratch.with_name(f"{self._scratch.name}-{digest}.{part}")


class _Chosen:
    """The records that have a cursor value."""

    def __init__(self, records: Records, watermark: Watermark, count: int) -> None:
        self._records = records
        self._watermark = watermark
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        return filter(self._watermark.wanted, iter(self._records))
