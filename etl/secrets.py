"""Values that must not be shown: known while a source is read, and left out of every message and log line.

A server may say anything back to us, the key it was sent included: in its reason, a header, an error page, a redirect.
"""

from __future__ import annotations

import base64
import html
import json
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What is shown in place of a token that a server has issued.
ISSUED = "access_token"
TOKEN = "${" + ISSUED + "}"
# What is shorter is no secret, and would be found in any text.
SHORTEST = 4
# A text that ends with so many characters of a secret was cut off in it.
_PART = 6
# A shorter path, such as `/feed`, tells nothing, and would be found in other texts.
_LONG_PART = 12
_ADDRESS = re.compile(r"https?://[^/?#]*([^?#]*)(?:\?([^#]*))?")
_AROUND = "'\"…). "

# How each secret may be written, and what is shown instead; the longest first.
_known: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("known", default=())


def know(values: Mapping[str, str]) -> None:
    """These are the secrets from now on, by their names; those of before are forgotten."""
    _known.set(_forms(values.items()))


def learn(name: str, value: str) -> None:
    """One more secret."""
    _known.set(tuple(sorted({*_known.get(), *_forms([(name, value)])}, key=_longest)))


def hide(text: str) -> str:
    """A text with the names of secrets in their place."""
    known = _known.get()
    for written, shown in known:
        text = text.replace(written, shown)
    return _without_part(text, known) if known else text


def holds_secret(text: str) -> bool:
    """Whether a text holds one."""
    return any(written in text for written, _ in _known.get())


def _forms(named: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    found = {
        (form, "${" + name + "}") for name, value in named if len(value) >= SHORTEST for form in _written(value.strip())
    }
    return tuple(sorted(found, key=_longest))


def _longest(form: tuple[str, str]) -> tuple[int, str]:
    return -len(form[0]), form[0]


def _written(value: str) -> set[str]:
    """A value as it is, in an address, in JSON, in HTML and as an opaque text."""
    in_json = json.dumps(value)[1:-1]
    plain = {value, quote(value, safe=""), quote(value), quote_plus(value), in_json, json.dumps(in_json)[1:-1]}
    plain |= _parts(value)
    packed = {base64.b64encode(value.encode()).decode(), base64.urlsafe_b64encode(value.encode()).decode()}
    return plain | {html.escape(value)} | packed


def _parts(value: str) -> set[str]:
    """Of a secret that is a whole address, what a server may repeat alone: its path, and its query."""
    found = _ADDRESS.match(value)
    return {part for part in found.groups() if part and len(part) >= _LONG_PART} if found else set()


def _without_part(text: str, known: tuple[tuple[str, str], ...]) -> str:
    """A text less the beginning of a secret that it was cut off in."""
    end = text.rstrip(_AROUND)
    for written, shown in known:
        for size in range(len(written) - 1, _PART - 1, -1):
            if end.endswith(written[:size]):
                return end[:-size] + shown + text[len(end) :]
    return text
