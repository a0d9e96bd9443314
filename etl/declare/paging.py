"""The declared ways from one page of an API to the next."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from etl.declare.model import Model, check_path

MaxPages = Annotated[int, Meta(ge=1, description="more pages than this is an error")]
Status = Annotated[int, Meta(ge=400, le=499, description="a status from 400 to 499")]
Into = Literal["query", "body"]


class Paged(Model, frozen=True):
    """What all styles of paging have in common. `more` is a JMESPath into the body: a false value ends the paging.

    So does an answer with a status of `ends_on` to any page but the first.
    """

    max_pages: MaxPages = 1000
    more: str | None = None
    ends_on: tuple[Status, ...] = ()

    def __post_init__(self) -> None:
        if self.more is not None:
            check_path(self.more, "more")


class Parametrised(Paged, frozen=True):
    """Paging by a parameter, in the query or, as a dotted path, in the JSON body.

    `into` is where it goes; by default into the body if the request has one.
    """

    into: Into | None = None


class NoPaging(Model, frozen=True, tag_field="style", tag="none"):
    """One request gives all."""


class PagePaging(Parametrised, frozen=True, tag_field="style", tag="page"):
    """`?page=1`, `?page=2`, … until a page is empty."""

    param: str = "page"
    start: int = 1


class OffsetPaging(Parametrised, frozen=True, tag_field="style", tag="offset"):
    """`?offset=0`, `?offset=N`, … until a page is empty, or shorter than the limit where `short_page_ends`."""

    param: str = "offset"
    start: int = 0
    limit_param: str = "limit"
    limit: Annotated[int, Meta(ge=1)] = 100
    short_page_ends: bool = False


class CursorPaging(Parametrised, frozen=True, kw_only=True, tag_field="style", tag="cursor"):
    """The body names the value that leads to the next page, at the JMESPath `next`, or a header does, `next_header`."""

    next: str | None = None
    next_header: str | None = None
    param: str = "cursor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.next is None) == (self.next_header is None):
            raise ValueError("exactly one of `next` and `next_header` is needed")
        if self.next is not None:
            check_path(self.next, "next")


class NextUrlPaging(Paged, frozen=True, tag_field="style", tag="next_url"):
    """The body holds the address of the next page, at the JMESPath `next`."""

    next: str = "next"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_path(self.next, "next")


class LinkPaging(Paged, frozen=True, tag_field="style", tag="link_header"):
    """The `Link` header holds the address of the next page, with `rel="next"`."""


Paging = NoPaging | PagePaging | OffsetPaging | CursorPaging | NextUrlPaging | LinkPaging
