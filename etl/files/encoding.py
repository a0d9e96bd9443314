"""Which encoding a file is in, where its source does not say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from operator import ne
from typing import TYPE_CHECKING

from charset_normalizer import from_bytes

from etl.files.alphabets import LANGUAGES, LEAST, agreement

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

DEFAULT = "utf-8"
# A file of which so few lines are not UTF-8 is UTF-8 all the same, and they are read in the fallback.
_MOST_ODD_LINES = 0.1
# Detectors of more than this find nothing that they do not find in it: bytes.
_SAMPLE = 64 * 1024
# Those of other scripts than Latin that programs still write, most usual first; ISO 8859 is taken for what Windows
# calls it. In Latin scripts letters beyond ASCII stand alone among others, here they make up words.
_OTHER = (
    *("cp1251", "cp1253", "cp932", "gb18030", "cp949", "big5", "euc_jp", "koi8_r", "cp1255", "cp1256", "mac_cyrillic"),
)
_HIGH = re.compile(rb"[\x80-\xff]+")
# What is a letter in most encodings of one byte a letter, and what is a sign in none.
_LETTER = re.compile(rb"[\xc0-\xff\x8a\x8c\x8e\x9a\x9c\x9e\x9f]")
_TOUCHING = re.compile(rb"[A-Za-z][\x80-\xff]+|[^A-Za-z]?[\x80-\xff]+[A-Za-z]")
USUAL = "cp1252"
_MAC = "mac_roman"
# Another encoding is meant only if it reads so many of the bytes beyond ASCII otherwise.
_DISTINCT = 0.1
# Fewer bytes beyond ASCII say nothing about the lines to come.
_LEAST_LETTERS = 16
# How much more chaos than the best guess another one may have, in percent.
_TOLERANCE = 2.0


@dataclass(frozen=True)
class Encoding:
    """An encoding, and the one for lines that are not in it. `guessed` says that nothing but the text speaks for it."""

    name: str
    fallback: str | None = None
    guessed: bool = False


def find_encoding(sample: bytes, fallback: str | None) -> Encoding:
    """The encoding of a file by its first bytes; `fallback` is what is taken for a few lines that are not UTF-8."""
    if _is_utf8(sample):
        return Encoding(DEFAULT, fallback)
    guess = _guess(sample[:_SAMPLE])
    if guess is None or len(b"".join(_HIGH.findall(sample))) < _LEAST_LETTERS:
        # Line by line: of so few letters beyond ASCII the others may be UTF-8 as well.
        return Encoding(DEFAULT, guess or fallback)
    return Encoding(guess, guessed=True)


def wide_encoding(sample: bytes) -> str | None:
    """UTF-16 without a byte order mark, known by its zeros: they stand in one half of the bytes only."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd < max(3, len(sample) // 50) or min(even, odd) * 20 > even + odd:
        return None
    name = "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = sample[: len(sample) // 4 * 4].decode(name)
    except UnicodeDecodeError:
        return None
    return name if "\n" in text or "\r" in text else None


def _is_utf8(sample: bytes) -> bool:
    """Whether all of it is, or so much that the rest are mistakes of single lines."""
    # The last line may be cut within a character.
    lines = sample.splitlines()
    whole = lines[:-1] if len(lines) > 1 else lines
    marked = [line for line in whole if not line.isascii()]
    odd = sum(1 for line in marked if not _decodes(line))
    return odd == 0 or (odd < len(marked) and odd <= _MOST_ODD_LINES * len(whole))


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=4)
def _guess(sample: bytes) -> str | None:
    """What the text looks like, None when it looks like nothing.

    In Latin scripts most runs of letters beyond ASCII touch one of ASCII, in others they are words.
    """
    runs = [run for run in _HIGH.finditer(sample) if _LETTER.search(run[0])]
    touching = sum(1 for run in runs if _TOUCHING.match(sample, max(run.start() - 1, 0), run.end() + 1))
    if 2 * touching >= len(runs) and (latin := _latin(sample)):
        return latin
    return _other(sample) if sum(len(run[0]) for run in runs) >= _LEAST_LETTERS else None


def _latin(sample: bytes) -> str | None:
    """By the letters of languages: detectors take German and French for Czech, whose encoding has their letters too."""
    texts = {name: sample.decode(name, "replace") for name in LANGUAGES}
    agreements = {name: agreement(texts[name], name) for name in LANGUAGES}
    best = max(LANGUAGES, key=lambda name: agreements[name])
    if _difference(texts[best], texts[USUAL]) < _DISTINCT * len(b"".join(_HIGH.findall(sample))):
        best = USUAL
    if best == _MAC and _detected(sample, (_MAC, *_OTHER)) != _MAC:
        return None
    return best if agreements[best] >= LEAST else None


def _detected(sample: bytes, names: tuple[str, ...]) -> str | None:
    """What a detector finds: Mac OS Roman has letters where Japanese has the halves of its own."""
    best = from_bytes(sample, cp_isolation=list(names)).best()
    return None if best is None else best.encoding


def _difference(one: str, other: str) -> int:
    """At how many places two readings of the same bytes differ."""
    return sum(map(ne, one, other))


def _other(sample: bytes) -> str | None:
    """What a detector finds: of its guesses that are about as good as its best, that with most words of a language."""
    found = from_bytes(sample, cp_isolation=list(_OTHER))
    best = found.best()
    if best is None:
        return None
    likely = [match for match in found if match.percent_chaos <= best.percent_chaos + _TOLERANCE]
    chosen = max(likely, key=lambda match: match.percent_coherence)
    return next(name for name in _OTHER if _agrees(sample, name, chosen))


def _agrees(sample: bytes, name: str, match: CharsetMatch) -> bool:
    """Whether an encoding gives the same text: the most usual of those that do is meant."""
    return name == match.encoding or sample.decode(name, "replace") == str(match)
