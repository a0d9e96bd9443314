"""What failed runs have in common: the code, the host, and the message without what differs from run to run."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etl.runs.outcome import Failure

# What stands for itself only: ids, times, addresses' ends, names in quotes, numbers.
_DIFFERING = (
    # By its characters: what stands in a message need not be a valid address.
    (
        re.compile(r"(https?://)(?:[^\s'\"<>/?#]*@)?([^\s'\"<>/?#]*)[^\s'\"<>]*"),
        lambda match: f"{match[1]}{match[2]}/…",
    ),
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|«[^»]*»"), lambda _: "'…'"),
    # Files are named as addresses are: which one it was differs from source to source.
    (re.compile(r"[\w./-]*\w\.(?:csv|tsv|txt|json|jsonl|ndjson|xml|rss|atom|gz|zip)\b", re.IGNORECASE), lambda _: "…"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), lambda _: "…"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{12,}\b", re.IGNORECASE), lambda _: "…"),
    # A status is what matters of a refusal.
    (re.compile(r"(?<![\w.])(?!(?:[45]\d\d)(?![\w.]))\d[\d.,:TZ-]*"), lambda _: "N"),
)
_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
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
    found = _HOST.match(url)
    return found[1].lower() if found and found[1] else url.partition("/")[0]
