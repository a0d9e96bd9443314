"""A TCP proxy that can lose answers, and leave connections open that lead nowhere."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading

CHUNK = 65536


class Proxy:
    """Forwards a port of its own to another; start with `with`."""

    def __init__(self, target: int, seed: int) -> None:
        """`target` is a port on loopback."""
        self._target = target
        self._dice = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lose_answers = 0.0
        self.lost = 0
        self._closed = threading.Event()
        self._dead: set[int] = set()
        self._connections = 0

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._listener.close()

    def black_hole(self) -> None:
        """What is open now stays open and carries nothing any more; new connections work."""
        self._dead |= set(range(self._connections))

    def _accept(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client, self._connections), daemon=True).start()
                self._connections += 1

    def _carry(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as server:
            while not self._closed.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.5)
                if number in self._dead:
                    self._closed.wait(120)
                    return
                for source in ready:
                    data = source.recv(CHUNK)
                    if not data or (source is server and self._loses()):
                        return
                    (server if source is client else client).sendall(data)

    def _loses(self) -> bool:
        """Whether the server's answer is thrown away, and the connection with it."""
        lost = self._dice.random() < self.lose_answers
        self.lost += lost
        return lost
