"""Lists that other programs keep: OPML, as feed readers write it, and plain lists of addresses."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from etl.declare.model import MOST_TAGS
from etl.declare.request import check_address
from etl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

# No list of a person is longer.
MOST_LISTED = 10_000
DEEPEST = 20
_ADDRESS = re.compile(r"https?://[^/@\s]+(/\S*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Listed:
    """An address with a name that is free, and its folders as tags. `is_feed` when the list says that it is one."""

    name: str
    url: str
    title: str
    tags: tuple[str, ...] = ()
    is_feed: bool = False


def read_listing(text: str) -> list[Listed]:
    """The addresses of a list, each once.

    Raises:
        ConfigError: it is neither, or one of its addresses is none.
    """
    found = _of_opml(text) if text.lstrip("\ufeff \t\r\n").startswith("<") else _of_lines(text)
    listed: dict[str, Listed] = {}
    names: set[str] = set()
    for title, url, tags, is_feed in found:
        if url in listed:
            # In several folders: one source with the tags of all.
            both = dict.fromkeys((*listed[url].tags, *tags))
            listed[url] = Listed(listed[url].name, url, title, tuple(both)[:MOST_TAGS], is_feed)
            continue
        _check(url)
        name = _free(slug(title or _place(url)), names)
        listed[url] = Listed(name, url, title, tags, is_feed)
        if len(listed) > MOST_LISTED:
            raise ConfigError(f"more than {MOST_LISTED} addresses")
    if not listed:
        raise ConfigError("no address was found in it")
    return list(listed.values())


def slug(text: str, joint: str = "_", longest: int = 80) -> str:
    """A text as a name: lower-case letters of ASCII and digits."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", joint, plain).strip(joint)[:longest].strip(joint)


_Found = tuple[str, str, tuple[str, ...], bool]


def _of_lines(text: str) -> Iterator[_Found]:
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        address = line.strip()
        if not address or address.startswith("#"):
            continue
        if not _ADDRESS.fullmatch(address):
            raise ConfigError(f"line {number}: {address[:100]!r} is no address; expected http:// or https://")
        yield "", address, (), False


def _of_opml(text: str) -> Iterator[_Found]:
    # Entities can stand for very much, and for what stands elsewhere; no list needs one.
    if "<!ENTITY" in text:
        raise ConfigError("it declares entities, which are not taken")
    try:
        root = ET.fromstring(text.lstrip("\ufeff \t\r\n"))  # noqa: S314 -- without entities
    except (ET.ParseError, ValueError) as error:
        raise ConfigError(f"it is no OPML: {error}") from error
    body = root.find("body")
    if body is None:
        raise ConfigError("it is no OPML: it has no <body>")
    yield from _outlines(body, (), 0)


def _outlines(parent: ET.Element, folders: tuple[str, ...], depth: int) -> Iterator[_Found]:
    if depth > DEEPEST:
        raise ConfigError(f"folders are nested deeper than {DEEPEST}")
    for outline in parent.findall("outline"):
        attributes = {name.lower(): value.strip() for name, value in outline.attrib.items()}
        title = attributes.get("title") or attributes.get("text", "")
        if url := attributes.get("xmlurl"):
            yield title, url, folders[:MOST_TAGS], True
        tag = slug(title, "-", 50)
        inside = folders if url or not tag else (*folders, tag)
        yield from _outlines(outline, tuple(dict.fromkeys(inside)), depth + 1)


def _check(url: str) -> None:
    try:
        check_address(url, "xmlUrl")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not _ADDRESS.fullmatch(url):
        raise ConfigError(f"{url[:100]!r} is no address; expected http:// or https://")


def _place(url: str) -> str:
    """What tells an address from others: its host and the last word of its path."""
    parts = urlsplit(url)
    words = [word for word in parts.path.split("/") if word]
    return f"{(parts.hostname or '').removeprefix('www.')} {words[-1] if words else ''}"


def _free(name: str, taken: set[str]) -> str:
    name = name or "source"
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
