"""Proof that a webhook is ours, as Standard Webhooks has it: https://www.standardwebhooks.com."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

PREFIX = "whsec_"
LEAST_SECRET, MOST_SECRET = 24, 64


def new_secret() -> str:
    """A secret that nobody knows yet."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def secret_bytes(text: str) -> bytes:
    """The key of a secret that is written `whsec_` and base64.

    Raises:
        ValueError: it is not written so, or too short or too long.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or not LEAST_SECRET <= len(key) <= MOST_SECRET:
        raise ValueError(f"expected {PREFIX} and {LEAST_SECRET} to {MOST_SECRET} bytes as base64")
    return key


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """What proves that a message is ours: of its id, its time in epoch seconds, and its body."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def headers(secret: bytes, message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message that is sent now."""
    timestamp = int(now.timestamp())
    return {
        "content-type": "application/json",
        "user-agent": "kasparro-alerts",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }
