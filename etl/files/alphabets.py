"""The letters beyond ASCII of languages in Latin script, and how well a text agrees with one of them."""

from __future__ import annotations

import re

_ICELANDIC = "áðéíóúýþæö"
# The letters that tell it stand where Turkish has its own.
_RARE = 0.95
# By the encodings that their text is written in; of two that agree as well with a text the first one is meant.
LANGUAGES: dict[str, tuple[str, ...]] = {
    "cp1252": (
        "äöüß",
        "àâæçéèêëîïôœùûüÿ",
        "áéíñóúü",
        "áâãàçéêíóôõúü",
        "àèéìíîòóùú",
        "åäöé",
        "æøåéäö",
        "àéèêëïíóòöúüç",
        _ICELANDIC,
    ),
    "cp1250": (
        "ąćęłńóśźż",
        "áčďéěíňóřšťúůýž",
        "áäčďéíĺľňóôŕšťúýž",
        "áéíóöőúüű",
        "čćđšž",
        "ăâîşţ",
        "äöüß",
    ),
    "cp1254": ("âçğıîöşüû",),
    "cp1257": ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"),
    "mac_roman": ("äöüß", "àâæçéèêëîïôœùûüÿ", "áéíñóúü", "áâãàçéêíóôõúü", "àèéìíîòóùú", "åäöé", "æøåéäö"),
}
# Names of people and places come from several languages of the west at once: a little less likely than one of them.
_WEST = "".join(language for language in LANGUAGES["cp1252"] if language is not _ICELANDIC)
_MIXED = 0.9
# Signs that stand in texts of all languages, if not within words; and the dot of a Turkish capital in small letters.
_SIGNS = "–—“”„‚‘’…•€£¥¢¤°§«»·×÷‰™®©±µ¹²³¼½¾ªº¿¡¬¦´¯¨¸\u00a0\u00ad\u0307"
_APART = "’\u00ad\u0307"
_BEYOND = re.compile(
    rf"[^\x00-\x7f{_SIGNS}]|(?<=[^\W\d_])[{''.join(sign for sign in _SIGNS if sign not in _APART)}](?=[^\W\d_])"
)
# Letters of no language that is known are more than this share.
LEAST = 0.75


def agreement(text: str, encoding: str) -> float:
    """The share of the letters beyond ASCII that the language of the encoding has which has most of them."""
    letters = _BEYOND.findall(text.lower())
    if not letters:
        return 1.0
    best = max(_share(letters, language) for language in LANGUAGES[encoding])
    return max(best, _MIXED * _share(letters, _WEST)) if encoding in {"cp1252", "mac_roman"} else best


def _share(letters: list[str], language: str) -> float:
    share = sum(letter in language for letter in letters) / len(letters)
    return share * _RARE if language is _ICELANDIC else share
