"""Ports: which are free, and what to say about one that is not."""

from __future__ import annotations

import socket


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
    """The preferred port if it is free, else one that the system picks."""
    if preferred is not None and is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require(name: str, port: int, host: str = "127.0.0.1") -> None:
    """Refuse to go on without this port.

    Raises:
        PortTakenError: says which setting changes it.
    """
    if not is_free(port, host):
        other = free_port()
        raise PortTakenError(f"port {port} ({name}) is in use; choose another, for example: make up {name}={other}")
