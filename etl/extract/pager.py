"""From one page of an API to the next: which request comes, and when the end is reached."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import msgspec

from etl import payload
from etl.declare.paging import CursorPaging, LinkPaging, NextUrlPaging, NoPaging, OffsetPaging, PagePaging, Parametrised
from etl.errors import ETLError, ForeignPageError, FormatError, RecordError, RefusedError
from etl.http.address import is_upgrade, same_origin
from etl.records import Cursor
from etl.secrets import holds_secret

if TYPE_CHECKING:
    from etl.declare.paging import Paging
    from etl.extract.document import Document
    from etl.extract.watermark import Since
    from etl.http.attempt import FetchResult
    from etl.http.target import PreparedRequest

# What a Link header, and any cursor, may have: characters.
MAX_LINK = 64 * 1024
# Nothing is tried twice: whatever the header is, this takes time in proportion to its length.
# Each is gone over once, whatever the header is.
_LINK = re.compile(r"<([^<>]*+)>")
_PARAMETER = re.compile(r'\s*+;\s*+([^,;=]++)=(\s*+"[^"]*+"|[^,;"]*+)')


class Broken(msgspec.Struct, frozen=True, array_like=True):
    """Why the next page cannot be had."""

    code: str
    message: str

    def error(self) -> ETLError:
        """The error that it was."""
        if self.code == ForeignPageError.code:
            return ForeignPageError(self.message)
        return FormatError(self.message, code=self.code)


class ApiCursor(Cursor, frozen=True):
    """A page: its number, what leads to it, and the watermark that the run asks `since`.

    `restarted` says that the server has forgotten a cursor of this run before, `broken` that there is no such page.
    """

    number: int
    at: Any
    since: str | None = None
    restarted: bool = False
    broken: Broken | None = None

    def next(self, at: Any, broken: Broken | None = None) -> ApiCursor:
        """The page after this one, of which the same is asked."""
        return msgspec.structs.replace(self, number=self.number + 1, at=at, broken=broken)


class Pager:
    """Follows one style of paging."""

    def __init__(self, paging: Paging, target: PreparedRequest) -> None:
        """`target` is the request for the first page."""
        self._paging = paging
        self._target = target
        self._seen: set[str] = set()

    @property
    def paths(self) -> list[str]:
        """The paths into the body that decide how it goes on."""
        paging = self._paging
        named = [paging.next] if isinstance(paging, CursorPaging | NextUrlPaging) and paging.next else []
        more = None if isinstance(paging, NoPaging) else paging.more
        return named if more is None else [*named, more]

    def start(self, since: str | None, *, restarted: bool = False) -> ApiCursor:
        """The cursor of the first page."""
        paging = self._paging
        at = paging.start if isinstance(paging, PagePaging | OffsetPaging) else None
        return ApiCursor(1, at, since, restarted)

    def check(self, cursor: ApiCursor) -> None:
        """Refuse to go in circles, or on without end.

        Raises:
            FormatError: this page was read before, or it is one too many.
            ETLError: there is no such page.
        """
        if cursor.broken is not None:
            raise cursor.broken.error()
        self._once(f"at {cursor.at}")
        if not isinstance(self._paging, NoPaging) and cursor.number > self._paging.max_pages:
            raise FormatError(f"more than max_pages = {self._paging.max_pages} pages", code="too_many_pages")

    def check_body(self, digest: str) -> None:
        """Refuse a page that says what an earlier one said: the server ignores the paging.

        Raises:
            FormatError: it does.
        """
        self._once(f"body {digest}")

    def _once(self, mark: str) -> None:
        if mark in self._seen:
            raise FormatError("paging loops: a page led back to one already read", code="paging_loop")
        self._seen.add(mark)

    def request(self, cursor: ApiCursor, since: Since) -> PreparedRequest:
        """The request for a page; `since` goes into all but those whose address the server gave."""
        paging, at = self._paging, cursor.at
        if isinstance(paging, NextUrlPaging | LinkPaging) and at is not None:
            return self._target.at(self._target.reveal(str(at)))
        if isinstance(at, str):
            at = self._target.reveal(at, is_url=False)
        target, extra = since.into(self._target), since.parameters
        added: list[tuple[str, Any]] = []
        if isinstance(paging, PagePaging | OffsetPaging) or (isinstance(paging, CursorPaging) and at is not None):
            added.append((paging.param, at))
        if isinstance(paging, OffsetPaging):
            added.append((paging.limit_param, paging.limit))
        if isinstance(paging, Parametrised) and self._into_body(paging):
            return _with_body(_with_query(target, extra), added)
        return _with_query(target, [(name, str(value)) for name, value in added] + extra)

    def _into_body(self, paging: Parametrised) -> bool:
        return paging.into == "body" or (paging.into is None and self._target.body is not None)

    def following(self, cursor: ApiCursor, answer: FetchResult, document: Document) -> ApiCursor | None:
        """The cursor of the next page, None after the last. Where it cannot be had, the cursor says why."""
        try:
            at = self._next(cursor, answer, document)
            if at in (None, "", False):
                return None
            _check_cursor(at)
        except (FormatError, RefusedError) as error:
            return cursor.next(None, Broken(error.code, error.message))
        return cursor.next(at)

    def _next(self, cursor: ApiCursor, answer: FetchResult, document: Document) -> Any:
        """What leads to the next page."""
        paging, count = self._paging, len(document.records)
        if isinstance(paging, NoPaging) or (paging.more is not None and not document.find(paging.more)):
            return None
        if isinstance(paging, PagePaging):
            return cursor.at + 1 if count else None
        if isinstance(paging, OffsetPaging):
            ended = not count or (paging.short_page_ends and count < paging.limit)
            return None if ended else cursor.at + count
        if isinstance(paging, CursorPaging):
            at = (
                answer.headers.get(paging.next_header.lower())
                if paging.next_header
                else document.find(paging.next or "@")
            )
            return self._target.conceal(at) if isinstance(at, str) else at
        if isinstance(paging, NextUrlPaging):
            return self._resolve(answer, document.find(paging.next))
        return self._resolve(answer, next_link(answer.headers.get("link", "")))

    def _resolve(self, answer: FetchResult, link: Any) -> str | None:
        if not link:
            return None
        try:
            url = urljoin(answer.base, str(link))
            foreign = not self._is_ours(url, answer)
        except ValueError as error:
            raise FormatError(f"the next page has a malformed address: {str(link)[:200]!r}", code="bad_url") from error
        if foreign:
            raise ForeignPageError("the next page is on another host")
        return self._target.without_secrets(url)

    def _is_ours(self, url: str, answer: FetchResult) -> bool:
        """Whether a next page may be asked for: secrets stay with their origin, and nobody is sent elsewhere."""
        target = self._target
        if same_origin(url, target.url) or is_upgrade(target.url, url):
            return True
        return not target.has_secrets and same_origin(url, answer.base)


def is_past_the_last(paging: Paging, cursor: ApiCursor, status: int | None) -> bool:
    """Whether an answer with this status says that there is no such page any more."""
    return not isinstance(paging, NoPaging) and cursor.number > 1 and status in paging.ends_on


def next_link(header: str) -> str | None:
    """The address of `rel="next"` in a Link header, None when there is none.

    Raises:
        FormatError: the header is too long.
    """
    if len(header) > MAX_LINK:
        raise FormatError(f"the Link header has more than {MAX_LINK} characters", code="bad_page")
    place = 0
    while link := _LINK.search(header, place):
        parameters, place = _parameters(header, link.end())
        if "next" in parameters.get("rel", "").lower().split():
            return link[1]
    return None


def _parameters(header: str, start: int) -> tuple[dict[str, str], int]:
    """The parameters of a link, of each name the first; and where they end."""
    found: dict[str, str] = {}
    while step := _PARAMETER.match(header, start):
        found.setdefault(step[1].strip().lower(), step[2].strip(' \t"'))
        start = step.end()
    return found, start


def _check_cursor(at: Any) -> None:
    if holds_secret(str(at)):
        raise FormatError("what leads to the next page holds a credential", code="bad_page")
    try:
        size = len(payload.write(at))
    except RecordError as error:
        raise FormatError(f"the cursor of the next page {error.message}", code="bad_page") from error
    if size > MAX_LINK:
        raise FormatError(f"the cursor of the next page has more than {MAX_LINK} bytes", code="bad_page")
    if "\0" in str(at):
        raise FormatError("the cursor of the next page holds a NUL character", code="bad_page")


def _with_query(target: PreparedRequest, added: list[tuple[str, str]]) -> PreparedRequest:
    names = {name for name, _ in added}
    kept = [pair for pair in target.params if pair[0] not in names]
    return dataclasses.replace(target, params=tuple(kept + added))


def _with_body(target: PreparedRequest, added: list[tuple[str, Any]]) -> PreparedRequest:
    body = target.body or {}
    for path, value in added:
        body = _placed(body, path.split("."), value)
    return dataclasses.replace(target, body=body)


def _placed(body: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of the body with a value at a path."""
    head, *rest = path
    child = body.get(head)
    return {**body, head: _placed(child if isinstance(child, dict) else {}, rest, value) if rest else value}
