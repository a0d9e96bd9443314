"""A page of items as the API shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from web.cursors import ItemCursor, pack

if TYPE_CHECKING:
    from db.queries.items import Page, Total
    from web.questions import Question


def present_items(question: Question, found: Page, total: Total) -> dict[str, Any]:
    """The items that were found, where the page stands, and what was asked."""
    by_cursor, next_cursor = question.after is not None, _next_cursor(question, found)
    return {
        "items": found.items,
        "pagination": {
            "total_items": total.count,
            "total_is_exact": total.exact,
            "total_pages": -(-total.count // question.size),
            "current_page": None if by_cursor else question.page or 1,
            "page_size": question.size,
            "has_next": next_cursor is not None,
            "has_previous": by_cursor or (question.page or 1) > 1,
            "next_cursor": next_cursor,
        },
        "filters_applied": {name: value for name, value in vars(question.filters).items() if value is not None},
    }


def _next_cursor(question: Question, found: Page) -> str | None:
    if found.last_id is None:
        return None
    order = question.order
    return pack(ItemCursor(order.sort_by, order.descending, found.last_id, found.last_value))
