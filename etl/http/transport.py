"""Connections that go to checked addresses only, and cannot outlast their deadline.

The deadline holds for every read, however slowly bytes arrive: status line, headers and body alike.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import PoolManager

from etl.http.address import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_SECONDS = 5.0


class ConnectionLimits:
    """What the connections of a session obey: a deadline that the owner sets, and the private hosts it may reach."""

    def __init__(self, private: Sequence[str]) -> None:
        self.private = tuple(private)
        self.deadline = 0.0

    def set(self, seconds: float) -> None:
        """Every read from now on ends within this time."""
        self.deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the deadline.

        Raises:
            TimeoutError: it is over.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline is over")
        return left


def make_session(guard: ConnectionLimits) -> requests.Session:
    """A session without proxies, netrc, cookies and automatic retries, whose connections obey the guard."""
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(_NoCookies())
    adapter = _Adapter(guard)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Session(requests.Session):
    """Never looks at redirects: to find the next one, `requests` would read the body of this one, however large."""

    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        return iter(())


class _Adapter(HTTPAdapter):
    def __init__(self, guard: ConnectionLimits) -> None:
        self._guard = guard
        super().__init__(pool_connections=4, pool_maxsize=2)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        del kwargs
        self.poolmanager = PoolManager(num_pools=args[0], maxsize=args[1])
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(_HTTPPool, guard=self._guard),
            "https": partial(_HTTPSPool, guard=self._guard),
        }


class _Guarded(HTTPConnection):
    """Connects to an address that was checked at this very moment; the name stays for Host and TLS."""

    def __init__(self, *args: Any, guard: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard
        self.response_class = partial(_Response, guard=guard)  # type: ignore[assignment]

    def _new_conn(self) -> socket.socket:
        port = self.port or self.default_port
        addresses = resolve(self.host, port, self._guard.private, min(CONNECT_SECONDS, self._guard.left()))
        failure: OSError | None = None
        for address in addresses:
            try:
                return socket.create_connection((address, port), min(CONNECT_SECONDS, self._guard.left()))
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection to {self.host}") from failure
        raise NewConnectionError(self, f"no connection to {self.host}") from failure


class _GuardedTLS(_Guarded, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _Guarded


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTLS


class _Response(http.client.HTTPResponse):
    """Reads against the deadline, and refuses headers that were cut off."""

    def __init__(self, sock: socket.socket, *args: Any, guard: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._watched = _Watched(sock, guard)
        self.fp = io.BufferedReader(self._watched)

    def begin(self) -> None:
        super().begin()
        # http.client takes the end of the connection for the end of the headers.
        if self._watched.ended:
            raise http.client.RemoteDisconnected("the connection ended in the middle of the headers")


class _Watched(io.RawIOBase):
    """A socket's bytes; each read waits at most until the deadline."""

    def __init__(self, sock: socket.socket, guard: ConnectionLimits) -> None:
        self._sock = sock
        self._guard = guard
        self._file = sock.makefile("rb", buffering=0)
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._guard.left())
        count = self._file.readinto(buffer)
        self.ended = count == 0
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _NoCookies(requests.cookies.cookielib.DefaultCookiePolicy):  # type: ignore[name-defined,misc]
    """Keeps nothing."""

    def set_ok(self, cookie: object, request: object) -> bool:
        """Refuse every cookie."""
        del cookie, request
        return False
