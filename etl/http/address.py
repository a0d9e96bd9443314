"""Which addresses may be talked to: public ones, and private ones that the operator has allowed."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from etl.declare.request import fill
from etl.errors import FetchError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

# Not covered by every Python's `is_global`: shared address space, IPv6 that is site-local or carries an IPv4 address,
# which can lead to private hosts, what is kept for protocols, relays, documents and segment routing, and the address at
# which Azure answers its machines.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            *("100.64.0.0/10", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
            *("fec0::/10", "::/96", "::ffff:0:0:0/96"),
            *("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "3fff::/20", "5f00::/16"),
        ),
    )
)


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def same_origin(url: str, other: str) -> bool:
    """True when two addresses share scheme, host and port."""
    return origin(url) == origin(other)


def is_upgrade(url: str, other: str) -> bool:
    """True when the other address is the same host by https, where this one is plain http."""
    return origin(url)[0] == "http" and origin(other) == ("https", origin(url)[1], 443) and origin(url)[2] == 80


def host_of(url: str) -> str:
    """What a host is known by to breakers and budgets: `name`, or `name:port` when the port is not the usual one."""
    scheme, host, port = origin(url)
    return host if port == (443 if scheme == "https" else 80) else f"{host}:{port}"


def declared_host(url: str | None, environment: Mapping[str, str]) -> str | None:
    """The host of a declared address, None when it cannot be told."""
    if url is None:
        return None
    try:
        return host_of(fill(url, environment))
    except (KeyError, ValueError):
        return None


def check_url(url: str) -> None:
    """Refuse what is not plain http or https.

    Raises:
        RefusedError: another scheme, no host, or user info in it.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise RefusedError("leads to an address that is not plain http or https", code="bad_url")


def resolve(host: str, port: int, private: Sequence[str], seconds: float) -> list[str]:
    """The addresses of a host, every one of them checked. The caller connects to these and resolves no more.

    Args:
        host: a name or an address.
        port: where it will be connected to.
        private: what the operator has allowed: host, host:port or a network.
        seconds: how long resolving may take.

    Raises:
        FetchError: it does not resolve in time.
        RefusedError: one of the addresses is private and not allowed.
    """
    addresses = list(dict.fromkeys(_look_up(host, port, seconds)))
    for address in addresses:
        if not is_allowed(address, host, port, private):
            raise RefusedError(
                f"{host} is on a private network; ALLOWED_PRIVATE_HOSTS can allow it, which workers read when they "
                "start",
                code="private_address",
            )
    return addresses


def is_allowed(address: str, host: str, port: int, private: Sequence[str]) -> bool:
    """True for a public address, or one that the operator has allowed."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return _is_public(ip) or any(_names(entry, ip, host, port) for entry in private)


def _names(entry: str, ip: IP, host: str, port: int) -> bool:
    if "/" in entry:
        return ip in ipaddress.ip_network(entry, strict=False)
    return entry in {host, f"{host}:{port}", str(ip), f"{ip}:{port}"}


def _is_public(ip: IP) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """Resolve in a thread: the system's resolver has no deadline of its own."""
    found: list[str] = []
    failed: list[OSError | UnicodeError] = []

    def work() -> None:
        try:
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True, name="resolver")
    thread.start()
    thread.join(seconds)
    if not found:
        reason = "it does not resolve" if failed else f"no answer within {seconds:.1f} s"
        raise FetchError(f"cannot resolve {host}: {reason}", code="dns_failed") from (failed[0] if failed else None)
    return found
