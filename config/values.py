"""What settings may be: each text as the value that it stands for.

Each function raises ValueError for a text that is none of what it expects, without showing what may be secret.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from etl.alerts.destination import parse_destinations
from etl.alerts.signature import secret_bytes
from etl.declare.duration import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from etl.alerts.destination import Destination

# What a worker process needs before it holds any record: bytes.
LEAST_MEMORY = 128 * 2**20
LARGEST_RECORD = 16 * 1024 * 1024


def postgres_url(text: str) -> str:
    """The address of a database, in the form of libpq."""
    if text and not re.match(r"postgres(ql)?(\+psycopg2)?://", text):
        raise ValueError("expected postgresql://user:password@host:port/database")
    _check_address(text)
    return re.sub(r"^postgres(ql)?(\+psycopg2)?://", "postgresql://", text)


def _check_address(url: str) -> None:
    """Refuse one whose parts would be taken for others: what connects would show the rest of the password as a host."""
    try:
        parts = urlsplit(url)
        is_plain = parts.netloc.count("@") <= 1 and (parts.port or True)
    except ValueError:
        is_plain = False
    if not is_plain:
        raise ValueError("not a valid address; in a password, write / @ : ? # as %2F %40 %3A %3F %23") from None


def redis_url(text: str) -> str:
    """The address of Redis; of sentinels there may be several, with `;` between."""
    if text and not re.match(r"(rediss?|sentinel)://", text):
        raise ValueError("expected redis://, rediss:// or sentinel://")
    for address in text.split(";"):
        _check_address(address)
    return text


def port(text: str) -> int:
    """The number of a port."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError("expected a port number, 1 to 65535")
    return int(text)


def natural(text: str) -> int:
    """A whole number."""
    if not text.isdecimal():
        raise ValueError("expected a whole number")
    return int(text)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if natural(text) < 1:
        raise ValueError("expected a whole number of at least 1")
    return int(text)


def _size(text: str) -> int:
    """Bytes, or so many KiB, MiB or GiB."""
    match = re.fullmatch(r"(\d{1,15}) ?(KiB|MiB|GiB)?", text)
    if not match or not int(match[1]):
        raise ValueError("expected a number of bytes of at least 1, or one with KiB, MiB or GiB, such as 4 MiB")
    return int(match[1]) * {None: 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[match[2]]


def record_size(text: str) -> int:
    """What a worker can hold a few of."""
    if _size(text) > LARGEST_RECORD:
        raise ValueError("expected at most 16 MiB")
    return _size(text)


def positive_duration(text: str) -> timedelta:
    """A length of time that is none at all is refused."""
    value = duration(text)
    if not value:
        raise ValueError("expected more than zero")
    return value


def memory(text: str) -> int:
    """What a worker process may use: bytes."""
    if _size(text) < LEAST_MEMORY:
        raise ValueError("expected at least 128MiB")
    return _size(text)


def destinations(text: str, env: Mapping[str, str]) -> tuple[Destination, ...]:
    """Where alerts go; a webhook has to be signed."""
    found = parse_destinations(text, schemes(env.get("ALERT_SCHEMES", "")))
    if any(one.is_webhook for one in found) and not env.get("ALERT_SECRET", "").strip():
        raise ValueError("an address is a webhook, whose messages are signed: set ALERT_SECRET too")
    return found


def schemes(text: str) -> tuple[str, ...]:
    """Beginnings of addresses, with or without `://`."""
    return tuple(word.lower().removesuffix("://") for word in words(text))


def alert_secret(text: str) -> bytes:
    """The key that webhooks are signed with; empty where there is none."""
    return secret_bytes(text) if text else b""


def web_address(text: str) -> str:
    """An address of the web, or nothing."""
    if text and not re.match(r"https?://[^/@]+", text):
        raise ValueError("expected http:// or https:// and a host")
    _check_address(text)
    return text


def flag(text: str) -> bool:
    """True or false."""
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise ValueError("expected true or false")
    return text.lower() in {"true", "1", "yes"}


def words(text: str) -> tuple[str, ...]:
    """What stands between commas and white space."""
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def hosts(text: str) -> tuple[str, ...]:
    """Hosts, addresses and networks."""
    return tuple(map(_host, words(text)))


_HOST = re.compile(r"(\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>(?!-)[\w-]{1,63}(\.[\w-]{1,63})*))(:(?P<port>\d+))?")


def _host(word: str) -> str:
    """A name, an address or a network, perhaps with a port, written as hosts are compared."""
    try:
        if "/" in word:
            return str(ip_network(word, strict=False))
        if match := _HOST.fullmatch(word):
            name = match["six"] or match["name"].lower()
            is_address = match["six"] or re.fullmatch(r"[\d.]+", name)
            return (str(ip_address(name)) if is_address else name) + (
                f":{port(match['port'])}" if match["port"] else ""
            )
        return str(ip_address(word))
    except ValueError as error:
        raise ValueError(f"{word!r}: expected a host, host:port or a network such as 10.1.0.0/16") from error


def one_of(*choices: str) -> Callable[[str], str]:
    """One of these words, in capitals or not."""

    def convert(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"expected one of {', '.join(choices)}")

    return convert
