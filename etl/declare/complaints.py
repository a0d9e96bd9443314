"""What is wrong with a document, said so that its author can mend it: the key first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import msgspec

_EXPECTED = {
    "name": "lower-case letters, digits and _, at most 100",
    "url": "an http or https address without user and password",
    "token_url": "an http or https address without user and password",
    "rate": "a rate such as 5/s, 10/m, 1000/h or 5000/d",
    "decimal": "one character that stands before decimals, such as a comma",
    "thousands": "one character that stands between groups of digits, such as a point",
    "timezone_names": "abbreviations of 1 to 6 letters, each with a time zone such as Asia/Kolkata",
    "tags": "lower-case letters, digits, _ and -, at most 50",
    "alert_after": "a number of runs, 1 to 1000, or a duration such as 2h",
    **dict.fromkeys(
        ("every", "jitter", "timeout", "lookback", "ahead", "window", "expect_every"),
        "a duration such as 30s, 30m, 1h or 7d",
    ),
}
_CHOICES = {
    "type": "api, csv and rss",
    "style": "none, page, offset, cursor, next_url and link_header",
    "kind": "header, query, bearer, basic and oauth2_client_credentials",
    "identity": "external_id, content and a list of keys",
    "mode": "full and append",
    "entry_id": "auto, guid, link and hash",
    "id_form": "plain and resolved",
    "missing": "include, exclude and fail",
    "drift": "report, quarantine and fail",
    "into": "query and body",
    "send": "header and body",
    "percent": "number and fraction",
    "format": "json and ndjson",
    "ragged": "pad and reject",
}


def explain(error: msgspec.ValidationError) -> str:
    """The key first, then what is wrong with it."""
    text, _, path = str(error).partition(" - at `")
    key = path.rstrip("`").removeprefix("$").removeprefix(".")
    last = key.rpartition(".")[2].partition("[")[0]
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        return f"unknown key `{key + '.' if key else ''}{unknown[1]}`"
    missing = re.fullmatch(r"Object missing required field `(.*)`", text)
    if missing:
        return f"missing key `{key + '.' if key else ''}{missing[1]}`"
    if text.startswith("Expected `str") and last in _EXPECTED:
        return f"`{key}`: expected {_EXPECTED[last]}"
    if text.startswith("Invalid") and last in _CHOICES:
        return f"`{key}`: {text}; there are {_CHOICES[last]}"
    return f"`{key}`: {text}" if key else text
