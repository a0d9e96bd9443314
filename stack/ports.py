"""Ports: which are free, and what to say about one that is not."""

from __future__ import annotations

import random
import socket
from pathlib import Path

# Below the ports that systems hand out to clients: one of those could be taken again before a server listens there.
_RANGE = range(20_000, 32_000)
# What this process was given and may not listen on yet: two servers are set up before either is started.
_given: set[int] = set()
# In the tables of the kernel.
_LISTENING = "0A"


class PortTakenError(Exception):
    """A port the stack needs is in use."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """The preferred port if it is free, else a random one, which nobody takes who does not ask for it by number."""
    if preferred is not None and is_free(preferred):
        return preferred
    others = (port for port in random.sample(_RANGE, len(_RANGE)) if port not in _given)
    found = next(filter(is_free, others), None)
    if found is None:
        raise PortTakenError(f"in use: all ports from {_RANGE.start} to {_RANGE.stop - 1}")
    _given.add(found)
    return found


def listeners(port: int) -> set[int]:
    """The accounts, by number, whose processes listen on a port; none where the system does not say."""
    found = set[int]()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        rows = table.read_text().splitlines()[1:] if table.is_file() else []
        for fields in map(str.split, rows):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(int(fields[7]))
    return found


def require(wanted: dict[str, tuple[int, str]]) -> None:
    """Refuse to go on without these ports.

    Args:
        wanted: by the name of the setting, port and address.

    Raises:
        PortTakenError: says which are in use, and which settings change them.
    """
    taken = {name: port for name, (port, host) in wanted.items() if not is_free(port, host)}
    if taken:
        which = ", ".join(f"{port} ({name})" for name, port in taken.items())
        others = " ".join(f"{name}={free_port()}" for name in taken)
        raise PortTakenError(f"in use: port {which}; choose another, for example: make up {others}")
