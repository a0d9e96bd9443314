"""Changes as a mirror reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from web.cursors import ChangeCursor, pack

if TYPE_CHECKING:
    from db.queries.changes import Changes


def present_changes(found: Changes) -> bytes:
    """The answer as JSON; items are JSON already."""
    position = found.position
    cursor = ChangeCursor(position.cluster, UUID(position.mark), position.xid, position.item_id, position.begun)
    return msgspec.json.encode(
        {
            "changes": [msgspec.Raw(item.encode()) for item in found.items],
            "next_cursor": pack(cursor),
            "has_more": found.has_more,
            "behind_seconds": found.behind_seconds,
        }
    )
