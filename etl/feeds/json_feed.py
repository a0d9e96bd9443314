"""JSON Feed (jsonfeed.org): its items in the shape that feedparser gives to entries."""

from __future__ import annotations

from typing import Any

import msgspec

_VERSION = "https://jsonfeed.org/version/"


def read_json_feed(body: bytes) -> list[Any]:
    """The items of a JSON Feed, in its order.

    Raises:
        ValueError: it is none.
    """
    try:
        feed = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"neither a feed nor a JSON Feed: {error}") from error
    if not isinstance(feed, dict) or not str(feed.get("version", "")).startswith(_VERSION):
        raise ValueError(f"JSON that is no JSON Feed: its `version` does not begin with {_VERSION}")
    items = feed.get("items")
    if not isinstance(items, list):
        raise ValueError("a JSON Feed without a list of `items`")  # noqa: TRY004 -- what is wrong is the feed
    return items


def entry_of(item: Any) -> dict[str, Any]:
    """An item as feedparser would have it.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(item, dict):
        raise TypeError("an item that is no object")
    markup, text = item.get("content_html"), item.get("content_text")
    authors = item.get("authors") or ([item["author"]] if item.get("author") else [])
    address = item.get("url") or item.get("external_url")
    images = [{"url": item["image"]}] if item.get("image") else []
    entry = {
        "id": None if item.get("id") is None else str(item["id"]),
        "title": item.get("title"),
        "summary": item.get("summary"),
        "content": [{"value": markup or text}] if markup or text else None,
        "link": address,
        "links": [{"rel": "enclosure", **_attachment(one)} for one in item.get("attachments") or []],
        "author": next((one.get("name") for one in authors if one.get("name")), None),
        "authors": authors,
        "published": item.get("date_published"),
        "updated": item.get("date_modified"),
        "tags": [{"term": tag} for tag in item.get("tags") or []],
        "media_thumbnail": images,
        **{key: value for key, value in item.items() if key not in _TAKEN},
    }
    return {name: value for name, value in entry.items() if value}


def _attachment(found: dict[str, Any]) -> dict[str, Any]:
    return {"href": found.get("url"), "type": found.get("mime_type"), "length": found.get("size_in_bytes")}


_TAKEN = frozenset(
    {
        *("id", "title", "summary", "content_html", "content_text", "url", "external_url", "image", "attachments"),
        *("author", "authors", "date_published", "date_modified", "tags"),
    }
)
