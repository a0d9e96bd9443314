"""What an answer means: served, moved, come back later, or no."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from etl.errors import FetchError, FormatError, RateLimitError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PERMANENT = frozenset({301, 308})
# These say that the caller asks too much, not that the host is unwell.
_LIMITED = frozenset({403, 429})

_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
# Rate limit headers give the reset as a delta, as epoch seconds or as epoch milliseconds.
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e12
_MONTH = 31 * 86_400.0


def check_status(response: requests.Response, *, conditional: bool, partial: bool = False) -> None:
    """Accept 200, and 304 or 206 where it was asked for.

    Raises:
        FetchError: it may pass.
        FormatError: a success without data.
        RefusedError: asking again does not help.
    """
    status = response.status_code
    if status == 200 or (status == 304 and conditional) or (status == 206 and partial):
        return
    text = f"answered {status} {response.reason or ''}".strip()
    headers = response.headers
    limited = status == 403 and ("retry-after" in headers or remaining(headers) == 0)
    if status in _RETRYABLE or status >= 500 or limited:
        failure = RateLimitError if status in _LIMITED else FetchError
        raise failure(text, code=f"http_{status}", retry_after=pause_asked(headers, is_limited=True))
    if 200 <= status < 400:
        raise FormatError(f"{text}, which carries no data", code=f"http_{status}")
    raise RefusedError(text, code=f"http_{status}", status=status)


def pause_asked(headers: Mapping[str, str], *, is_limited: bool = False) -> float | None:
    """Seconds that the server wants no further request in, None when it does not say; at most a month.

    `Retry-After` counts where the request was turned away, a used-up rate limit always.
    """
    now = server_time(headers)
    if is_limited and (wait := _retry_after(headers.get("retry-after", "").strip(), now)) is not None:
        return min(wait, _MONTH)
    if remaining(headers) == 0 and (wait := _reset(headers, now)) is not None:
        return min(wait, _MONTH)
    return None


def remaining(headers: Mapping[str, str]) -> int | None:
    """How many requests the server's rate limit leaves, None when it does not say."""
    for name in ("x-ratelimit-remaining", "ratelimit-remaining", "x-rate-limit-remaining"):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"-?\d{1,12}", value):
            return max(0, int(value))
    structured = re.search(r"\br=(\d{1,12})", headers.get("ratelimit", ""))
    return int(structured[1]) if structured else None


def server_time(headers: Mapping[str, str]) -> datetime:
    """The server's own clock, which its dates are relative to; ours when it does not say."""
    return http_date(headers.get("date", "")) or datetime.now(UTC)


def http_date(text: str) -> datetime | None:
    """A date as HTTP writes it, None when it is none."""
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _retry_after(value: str, now: datetime) -> float | None:
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    until = http_date(value)
    return None if until is None else max(0.0, (until - now).total_seconds())


def _reset(headers: Mapping[str, str], now: datetime) -> float | None:
    for name in ("x-ratelimit-reset", "ratelimit-reset", "x-rate-limit-reset"):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,16}(\.\d{1,9})?", value):
            number = float(value)
            seconds = number / 1000 if number > _EPOCH_MILLISECONDS else number
            return max(0.0, seconds - now.timestamp()) if seconds > _EPOCH_SECONDS else seconds
    structured = re.search(r"\bt=(\d{1,9})", headers.get("ratelimit", ""))
    return float(structured[1]) if structured else None
