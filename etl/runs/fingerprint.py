"""What failed runs have in common: the code, the host, and the message without what differs from run to run."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from etl.runs.outcome import Failure

# What stands for itself only: ids, times, addresses' ends, names in quotes, numbers.
_DIFFERING = (
    (re.compile(r"https?://[^\s'\"<>]+"), lambda match: f"{urlsplit(match[0]).scheme}://{urlsplit(match[0]).netloc}/…"),
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|«[^»]*»"), lambda _: "'…'"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), lambda _: "…"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{12,}\b", re.IGNORECASE), lambda _: "…"),
    # A status is what matters of a refusal.
    (re.compile(r"(?<![\w.])(?!(?:[45]\d\d)(?![\w.]))\d[\d.,:TZ-]*"), lambda _: "N"),
)
LONGEST = 300


def generalised(message: str) -> str:
    """A message with placeholders for what differs between runs that fail alike."""
    for pattern, shown in _DIFFERING:
        message = pattern.sub(shown, message)
    return message[:LONGEST]


def fingerprint(failure: Failure, document: dict[str, Any]) -> str:
    """The group of a failed run, by its failure and the document of its source: 16 hexadecimal digits."""
    said = "\n".join((failure.code, host_declared(document) or "", generalised(failure.message)))
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def host_declared(document: dict[str, Any]) -> str | None:
    """The host of a source as it is written in its document; None of a file."""
    url = (document.get("request") or {}).get("url")
    if not isinstance(url, str):
        return None
    return urlsplit(url).netloc.lower() or url.partition("/")[0]
