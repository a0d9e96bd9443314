"""A process that parses feeds for another one, which it does not outlive.

Jobs and feeds go over its standard input and output: four bytes of length, then MessagePack. A feed that takes too
long ends the process by the kernel's hand, since no code of ours runs while a regular expression does.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import struct
import sys
from typing import BinaryIO

import msgspec

from etl.child import die_with_parent
from etl.feeds.parse import Feed, FeedJob, parse

# Three times what the largest feeds in use take: bytes.
MEMORY = 512 * 1024 * 1024
# A job is a feed, an answer is what it says: bytes.
MAX_MESSAGE = 64 * 1024 * 1024
LENGTH = struct.Struct(">I")

_TOO_COSTLY = Feed(problem=("feed_too_costly", "the feed needs too much memory to parse"))


def main() -> None:
    """Serve until the input ends."""
    # Elsewhere than on Linux the end of the input does it, and the alarm.
    die_with_parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    decode = msgspec.msgpack.Decoder(FeedJob).decode
    while (message := receive(sys.stdin.buffer)) is not None:
        send(sys.stdout.buffer, _parsed(decode(message)))


def receive(stream: BinaryIO) -> bytes | None:
    """One message, None at the end, or when it is larger than any should be."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size or LENGTH.unpack(head)[0] > MAX_MESSAGE:
        return None
    return stream.read(LENGTH.unpack(head)[0])


def send(stream: BinaryIO, message: bytes) -> None:
    """Write one message."""
    stream.write(LENGTH.pack(len(message)) + message)
    stream.flush()


def _parsed(job: FeedJob) -> bytes:
    try:
        return msgspec.msgpack.encode(_parse(job))
    except MemoryError:
        return msgspec.msgpack.encode(_TOO_COSTLY)
    except UnicodeEncodeError as error:
        return msgspec.msgpack.encode(Feed(problem=("bad_feed", f"the feed holds text that is none: {error}"[:500])))


def _parse(job: FeedJob) -> Feed:
    # SIGALRM is not handled, so it ends the process wherever it is.
    signal.alarm(job.seconds)
    try:
        return parse(job)
    except MemoryError:
        return _TOO_COSTLY
    except Exception as error:  # noqa: BLE001 -- whatever a parser stumbles over, it is the feed that cannot be parsed
        return Feed(problem=("bad_feed", f"the feed cannot be parsed: {type(error).__name__}: {error}"[:500]))
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
