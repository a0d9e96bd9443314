"""A process that parses feeds for another one, which it does not outlive.

Jobs and feeds go over its standard input and output: four bytes of length, then MessagePack. A feed that takes too
long ends the process by the kernel's hand, since no code of ours runs while a regular expression does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from typing import BinaryIO

import msgspec

from etl.feeds.parse import Feed, FeedJob, parse

MEMORY = 1536 * 1024 * 1024
LENGTH = struct.Struct(">I")

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the input ends."""
    _die_with_parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    decode = msgspec.msgpack.Decoder(FeedJob).decode
    while (message := receive(sys.stdin.buffer)) is not None:
        send(sys.stdout.buffer, msgspec.msgpack.encode(_parse(decode(message))))


def receive(stream: BinaryIO) -> bytes | None:
    """One message, None at the end."""
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def send(stream: BinaryIO, message: bytes) -> None:
    """Write one message."""
    stream.write(LENGTH.pack(len(message)) + message)
    stream.flush()


def _parse(job: FeedJob) -> Feed:
    # SIGALRM is not handled, so it ends the process wherever it is.
    signal.alarm(job.seconds)
    try:
        return parse(job)
    except MemoryError:
        return Feed(problem=("feed_too_costly", "the feed needs too much memory to parse"))
    except Exception as error:  # noqa: BLE001 -- whatever a parser stumbles over, it is the feed that cannot be parsed
        return Feed(problem=("bad_feed", f"the feed cannot be parsed: {type(error).__name__}: {error}"[:500]))
    finally:
        signal.alarm(0)


def _die_with_parent() -> None:
    """On Linux the kernel sees to it; elsewhere the end of the input does, and the alarm."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit()


if __name__ == "__main__":
    main()
