"""Where alerts go: addresses of webhooks and of people, with the tags that lead there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

WEBHOOKS = ("http", "https")
_WRITTEN = re.compile(
    r"(?:(?P<tags>[a-z0-9_-]{1,50}(?:,[a-z0-9_-]{1,50})*)=)?(?P<url>(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://\S+)"
)


@dataclass(frozen=True)
class Destination:
    """One address. Without tags it takes every alert, else those that concern a source with one of them."""

    url: str = field(repr=False)
    scheme: str
    tags: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What it is known by, without a secret: the scheme, the host of a webhook, and a digest of the address."""
        host = f"//{urlsplit(self.url).hostname}" if self.is_webhook else ""
        return f"{self.scheme}:{host}#{hashlib.blake2b(self.url.encode(), digest_size=4).hexdigest()}"

    @property
    def is_webhook(self) -> bool:
        """Whether a machine reads it: signed JSON, each message by itself."""
        return self.scheme in WEBHOOKS


def parse_destinations(text: str, schemes: Collection[str]) -> tuple[Destination, ...]:
    """Addresses as a setting has them, with white space between: `https://…` or `tag,tag=mailto://…`.

    Raises:
        ValueError: one is no address, or its scheme is not among `schemes`; the message does not show it.
    """
    return tuple(_destination(number, word, schemes) for number, word in enumerate(text.split(), 1))


def _destination(number: int, word: str, schemes: Collection[str]) -> Destination:
    found = _WRITTEN.fullmatch(word)
    if not found:
        raise ValueError(
            f"the address number {number} is none; expected https://… or another, perhaps after tags and ="
        )
    scheme = found["scheme"].lower()
    if scheme not in WEBHOOKS and scheme not in schemes:
        raise ValueError(f"the address number {number} begins with {scheme}://, which ALERT_SCHEMES has to name")
    if scheme in WEBHOOKS and not _is_plain(found["url"]):
        raise ValueError(f"the address number {number} is not plain {scheme}: it needs a host, and no user in it")
    return Destination(found["url"], scheme, frozenset((found["tags"] or "").split(",")) - {""})


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and "@" not in parts.netloc and (parts.port or True)  # type: ignore[return-value]
    except ValueError:
        return False


def chosen(
    destinations: Iterable[Destination], audiences: Collection[str], told: Collection[str] | None = None
) -> list[Destination]:
    """Who hears of something that concerns sources of these audiences: the tags of one, with commas between.

    Of one that nobody would hear of, as of the service, all of them do. Those who heard of it by `told` are left out.
    """
    every = list(destinations)
    heard = [one for audience in audiences or ("",) for one in _hearing(every, audience)]
    know = [] if told is None else chosen(every, told)
    return [one for one in every if one in heard and one not in know]


def _hearing(every: list[Destination], audience: str) -> list[Destination]:
    return [one for one in every if not one.tags or not one.tags.isdisjoint(audience.split(","))] or every
