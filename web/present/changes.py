"""Changes as a mirror reads them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from web.cursors import ChangeCursor, pack

if TYPE_CHECKING:
    from db.queries.changes import Bookmark, Changes


def present_changes(found: Changes, bookmark: Bookmark) -> bytes:
    """The answer as JSON; items are JSON already."""
    cursor = ChangeCursor(**asdict(bookmark.position), mark=UUID(bookmark.mark))
    return msgspec.json.encode(
        {
            "changes": [msgspec.Raw(item.encode()) for item in found.items],
            "next_cursor": pack(cursor),
            "has_more": found.has_more,
            "behind_seconds": found.behind_seconds,
        }
    )
