"""Credentials that are written into a source instead of being named: found, and kept out of what is shown."""

from __future__ import annotations

import re
from typing import Any

from etl.declare.request import SECRET

# The parts of an `auth` that prove who asks.
_PROOFS = frozenset({"value", "token", "password", "client_secret"})
# Names of headers and parameters that hold one; `key` alone may be any key.
_NAMED = re.compile(
    r"(^|[-_.])(authorization|cookie|token|secret|password|passwd|pwd|credential|api[-_]?key|apikey|access[-_]?key|"
    r"private[-_]?key|functions[-_]?key|auth|auth[-_]?key|subscription[-_]?key|sig|signature|session|session[-_]?id|sid|"
    r"jwt|appid)s?($|[-_.])",
    re.IGNORECASE,
)
_KEY = re.compile(r"[?&]([^=&#]+)=([^&#]+)")
MISSING = "MISSING"
# A smaller number counts something.
LONGEST_HARMLESS = 12
SHORTEST_NUMBER = 100_000


def literal_credentials(document: dict[str, Any]) -> list[str]:
    """The keys of a source document that hold a credential as it is, such as `request.auth.token`."""
    return [path for path, _ in _found(document)]


def names_credential(name: str) -> bool:
    """Whether a header or parameter of this name holds one."""
    return bool(_NAMED.search(name))


def masked(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it may be shown: `${MISSING_…}` stands for each credential that is written into it."""
    places = dict(_found(document))
    shown = _masked(document, places, "")
    assert isinstance(shown, dict)
    return shown


def _found(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The places, each with what is shown there."""
    found = []
    for path, key, text in _texts(document, "", ""):
        if path in {"request.url", "request.auth.token_url"}:
            holds = any(_NAMED.search(name) and not SECRET.search(value) for name, value in _KEY.findall(text))
        elif path.startswith("request.auth."):
            is_proof = key in _PROOFS or (path.startswith("request.auth.params.") and _NAMED.search(key))
            holds = bool(is_proof) and not SECRET.search(text)
        elif path.startswith(("request.headers.", "request.params.", "request.body.", "backfill.params.")):
            holds = bool(_NAMED.search(key)) and _is_literal(key, text)
        else:
            holds = False
        if holds:
            found.append((path, "${" + _name(key) + "}"))
    return found


def _is_literal(key: str, text: str) -> bool:
    """Whether the credential is written out. Cookies are several in one, of which some may be `theme=dark`."""
    if key.lower() != "cookie" or not SECRET.search(text):
        return not SECRET.search(text)
    parts = (part.strip().partition("=") for part in text.split(";"))
    return any(
        not SECRET.search(value) and (_NAMED.search(name) or len(value) > LONGEST_HARMLESS) for name, _, value in parts
    )


def _texts(value: Any, path: str, key: str) -> Any:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _texts(child, f"{path}.{name}" if path else str(name), str(name))
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _texts(child, f"{path}[{number}]", key)
    elif isinstance(value, str) and value:
        yield path, key, value
    elif isinstance(value, int) and value >= SHORTEST_NUMBER:
        yield path, key, str(value)


def _masked(value: Any, places: dict[str, str], path: str) -> Any:
    if isinstance(value, dict):
        return {name: _masked(child, places, f"{path}.{name}" if path else str(name)) for name, child in value.items()}
    if isinstance(value, list):
        return [_masked(child, places, f"{path}[{number}]") for number, child in enumerate(value)]
    if path not in places:
        return value
    return _masked_url(value, places[path]) if path.endswith("url") else places[path]


def _masked_url(url: str, shown: str) -> str:
    return _KEY.sub(
        lambda part: (
            part[0].replace(part[2], shown) if _NAMED.search(part[1]) and not SECRET.search(part[2]) else part[0]
        ),
        url,
    )


def _name(key: str) -> str:
    return f"{MISSING}_{re.sub('[^A-Z0-9]+', '_', key.upper()).strip('_')}"
