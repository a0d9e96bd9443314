"""Messages to people, in a process of its own: whatever a library does with an address, there is an answer in time.

It reads an address, a title, a text and the level of a message as JSON, and writes what was wrong, or nothing.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from etl.child import die_with_parent
from etl.errors import FetchError

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 30.0
LONGEST_REASON = 300


class Message(msgspec.Struct):
    """What is to be sent. `level` is `failure`, `success`, `warning` or `info`."""

    url: str
    title: str
    body: str
    level: str = "failure"


def notify(project: Path, message: Message) -> None:
    """Send a message, within 30 s.

    Raises:
        FetchError: it was not taken, or not in time.
    """
    scheme = message.url.partition(":")[0]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "etl.alerts.notify"],
            cwd=project,
            input=msgspec.json.encode(message),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{scheme}: not taken within {SECONDS:.0f} s", code="timeout") from error
    except OSError as error:
        raise FetchError(f"{scheme}: no process could be begun: {error.strerror}", code="not_sent") from error
    if done.returncode:
        reason = done.stdout.decode(errors="replace").strip() or f"the process ended with {done.returncode}"
        raise FetchError(f"{scheme}: {reason}"[:LONGEST_REASON], code="not_sent")


def main() -> int:
    """Send what stands on the standard input; 0 when it was taken."""
    die_with_parent()
    message = msgspec.json.decode(sys.stdin.buffer.read(), type=Message)
    reasons = _Reasons()
    logging.getLogger("apprise").addHandler(reasons)
    # The library is large, and most messages are webhooks.
    import apprise

    sender = apprise.Apprise(asset=apprise.AppriseAsset(app_id="Kasparro", async_mode=False, storage_mode="memory"))
    if not sender.add(message.url):
        print("the address cannot be read")
        return 1
    if sender.notify(title=message.title, body=message.body, notify_type=message.level):
        return 0
    print(without_parts(reasons.last, message.url) or "it was not taken")
    return 1


class _Reasons(logging.Handler):
    """Keeps the last warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def without_parts(text: str, url: str) -> str:
    """A text without what stands in an address: users, passwords and tokens are in any of its parts."""
    for part in sorted({*re.split(r"[/?&=:@,]+", url)[1:], *re.split(r"[/?&=:@,]+", unquote(url))[1:]}, key=len)[::-1]:
        if len(part) > 2:
            text = text.replace(part, "…")
    return " ".join(text.split())[:LONGEST_REASON]


if __name__ == "__main__":
    sys.exit(main())
