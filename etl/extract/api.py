"""REST APIs: pages of JSON, in the common styles of paging."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from etl import payload
from etl.convert import Moment
from etl.duration import duration
from etl.errors import FormatError, RefusedError
from etl.extract.http import Answer, HttpClient, Target, same_origin
from etl.paths import path
from etl.records import BadRecord, Cursor, Page
from etl.source import (
    CursorPaging,
    LinkPaging,
    NextUrlPaging,
    NoPaging,
    OffsetPaging,
    PagePaging,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.records import Position
    from etl.source import ApiSource

_NEXT_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^,;=]+=(?:"[^"]*"|[^,;"]*))*)')
_REL = re.compile(r'rel\s*=\s*"?([^";]*)"?', re.IGNORECASE)
_SHOWN = 2000


class ApiExtractor:
    """Follows one style of paging from page to page."""

    def __init__(self, source: ApiSource, http: HttpClient, target: Target) -> None:
        """`target` is the source's request with its secrets."""
        self._source = source
        self._http = http
        self._target = target
        self._records = path(source.records)

    def pages(self, position: Position) -> Iterator[Page]:
        """Pages from the position on. A cursor that comes up twice is a failure, not an end."""
        cursor, tries, watermark = position.cursor or self._start(), position.tries, position.watermark
        since = position.watermark if position.cursor is None else cursor.get("since")
        cursor = {**cursor, "since": since} if since else cursor
        seen: set[str] = set()
        while True:
            self._guard_loop(cursor, seen)
            answer = self._http.get(self._at(cursor), self._source.timeout, tries)
            tries = 0
            body = payload.decode(answer.body)
            records = self._find(body)
            watermark = self._highest(records, watermark)
            following = self._following(cursor, answer, body, records) if records or self._body_decides() else None
            if following is not None and since:
                # A resumed run has to ask the same question.
                following = {**following, "since": since}
            yield Page(cursor, list(map(_checked, records)), following, _hash(answer.body), len(answer.body), watermark)
            if following is None:
                return
            cursor = following

    def _start(self) -> Cursor:
        paging = self._source.paginate
        return {"number": 1, "at": paging.start if isinstance(paging, PagePaging | OffsetPaging) else None}

    def _guard_loop(self, cursor: Cursor, seen: set[str]) -> None:
        paging = self._source.paginate
        if str(cursor["at"]) in seen:
            raise FormatError("paging loops: a page led back to one already read", code="paging_loop")
        seen.add(str(cursor["at"]))
        if not isinstance(paging, NoPaging) and cursor["number"] > paging.max_pages:
            raise FormatError(f"more than max_pages = {paging.max_pages} pages", code="too_many_pages")

    def _at(self, cursor: Cursor) -> Target:
        """The request for one page."""
        paging, at = self._source.paginate, cursor["at"]
        if isinstance(paging, NextUrlPaging | LinkPaging) and at is not None:
            return self._target.at(str(at))
        added: list[tuple[str, str]] = []
        if isinstance(paging, PagePaging | OffsetPaging) or (isinstance(paging, CursorPaging) and at is not None):
            added.append((paging.param, str(at)))
        if isinstance(paging, OffsetPaging):
            added.append((paging.limit_param, str(paging.limit)))
        if self._source.incremental and cursor.get("since"):
            added.append((self._source.incremental.param, self._since(str(cursor["since"]))))
        names = {name for name, _ in added}
        kept = [pair for pair in self._target.params if pair[0] not in names]
        return replace(self._target, params=tuple(kept + added))

    def _find(self, body: Any) -> list[Any]:
        try:
            found = self._records.search(body)
        except ValueError as error:
            raise FormatError(f"`records` does not fit the answer: {error}", code="no_records") from error
        if isinstance(found, list):
            return found
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise FormatError(f"expected a list of records at `{self._source.records}`, found {kind}", code="no_records")

    def _body_decides(self) -> bool:
        """Where the server names the next page, an empty page is not yet the end."""
        return isinstance(self._source.paginate, CursorPaging | NextUrlPaging | LinkPaging)

    def _following(self, cursor: Cursor, answer: Answer, body: Any, records: list[Any]) -> Cursor | None:
        paging, number = self._source.paginate, cursor["number"] + 1
        at: Any = None
        if isinstance(paging, PagePaging):
            at = cursor["at"] + 1
        elif isinstance(paging, OffsetPaging):
            at = cursor["at"] + len(records)
        elif isinstance(paging, CursorPaging):
            at = path(paging.next).search(body)
        elif isinstance(paging, NextUrlPaging):
            at = self._resolve(answer, path(paging.next).search(body))
        elif isinstance(paging, LinkPaging):
            at = self._resolve(answer, next_link(answer.headers.get("link", "")))
        return None if at in (None, "", False) else {"number": number, "at": at}

    def _resolve(self, answer: Answer, link: Any) -> str | None:
        if not link:
            return None
        url = urljoin(answer.base, str(link))
        if not same_origin(url, self._target.url):
            raise RefusedError("the next page is on another host", code="foreign_page")
        return self._target.without_secrets(url)

    def _highest(self, records: list[Any], watermark: str | None) -> str | None:
        """The newest cursor value seen, as ISO 8601 text or a number."""
        if self._source.incremental is None:
            return None
        field = path(self._source.incremental.field)
        found = [_comparable(field.search(record)) for record in records if isinstance(record, dict)]
        known = [_comparable(watermark)] if watermark else []
        values = [value for value in found + known if value is not None]
        return max(values)[1] if values else None

    def _since(self, watermark: str) -> str:
        assert self._source.incremental is not None
        lookback = duration(self._source.incremental.lookback)
        moment = _moment(watermark)
        if moment is None or not lookback:
            return watermark
        return (moment - lookback).isoformat().replace("+00:00", "Z")


def next_link(header: str) -> str | None:
    """The address of `rel="next"` in a Link header, None when there is none."""
    for address, parameters in _NEXT_LINK.findall(header):
        relation = _REL.search(parameters)
        if relation and "next" in relation[1].lower().split():
            return str(address)
    return None


def _checked(record: Any) -> dict[str, Any] | BadRecord:
    if isinstance(record, dict):
        return record
    return BadRecord(repr(record)[:_SHOWN].encode(), "", "not_an_object", "the record is not a JSON object")


def _hash(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _comparable(value: Any) -> tuple[float, str] | None:
    """Cursor values compare as instants or numbers, never as text."""
    if value is None or isinstance(value, (dict, list, bool)):
        return None
    moment = _moment(str(value))
    if moment is not None:
        return moment.timestamp(), str(value)
    try:
        return float(value), str(value)
    except ValueError as error:
        raise FormatError(
            f"the cursor value {str(value)[:50]!r} is neither a time nor a number", code="bad_cursor"
        ) from error


def _moment(value: str) -> datetime | None:
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", value):
        return None
    try:
        return Moment(UTC)(value)  # type: ignore[arg-type]
    except ValueError:
        return None
