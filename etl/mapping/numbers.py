"""Numbers as people write them, by what a source declares: separators, signs, currencies, percent, parentheses."""

from __future__ import annotations

import re
import unicodedata
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

from etl.mapping.convert import MAX_NUMBER_LENGTH, checked, number

if TYPE_CHECKING:
    from re import Match, Pattern

    from etl.declare.values import Numbers

# ISO 4217, and how prices are marked where no sign of Unicode's is used.
_CODES = re.compile(r"[A-Z]{3}").findall(
    "COD AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP "
    "BYN BZD CAD CDF CHF CLF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP "
    "GEL GHS GIP GMD GNF GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR "
    "KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN "
    "MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR "
    "SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD "
    "UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG "
)
_MARKS = (
    *("kr.", "kr", "zł", "Kč", "Ft", "lei", "лв.", "лв", "руб.", "руб", "р.", "грн", "Fr.", "Fr", "TL", "Rs.", "Rs"),
    *("R$", "US$", "A$", "C$", "CA$", "AU$", "NZ$", "HK$", "NT$", "S$", "S/", "Bs.", "Bs", "元", "円", "원"),
)
_SIGNS = "[" + "".join(map(re.escape, (c for c in map(chr, range(0x10000)) if unicodedata.category(c) == "Sc"))) + "]"
_CURRENCY = "(?:" + "|".join([*map(re.escape, sorted(_MARKS, key=len, reverse=True)), _SIGNS, *_CODES]) + ")"
_SPACE = re.compile(r"[\s\u00a0\u2007\u2009\u202f]+")
# What counts as a declared apostrophe.
_APOSTROPHES = "['\u2019]"
_EXACT = Context(prec=MAX_NUMBER_LENGTH)


class NumberReader:
    """Reads the numbers of a source that says how it writes them."""

    def __init__(self, declared: Numbers) -> None:
        """Compile what is declared."""
        self._decimal = declared.decimal
        self._percent = declared.percent
        self._form = _form(declared.decimal, declared.thousands)

    def __call__(self, value: Any) -> Decimal | None:
        """A decimal number, None for an absent value; numbers of JSON are read as they are.

        Raises ValueError for what is written otherwise than declared.
        """
        if not isinstance(value, str):
            return number(value)
        written = _SPACE.sub(" ", value).strip().replace("\N{MINUS SIGN}", "-")
        if not written:
            return None
        found = self._form.fullmatch(written) if len(written) <= MAX_NUMBER_LENGTH else None
        if found is None:
            raise ValueError(f"expected a number as `numbers` declares it, with {self._decimal!r} before decimals")
        return checked(self._scaled(found, _signed(found)))

    def _scaled(self, found: Match[str], amount: Decimal) -> Decimal:
        if not found["percent"]:
            return amount
        if self._percent is None:
            raise ValueError(
                "a percentage; declare `numbers: {percent: number}` to keep 12.5, or `{percent: fraction}` for 0.125"
            )
        return amount.scaleb(-2, _EXACT) if self._percent == "fraction" else amount


def _signed(found: Match[str]) -> Decimal:
    """The amount with its sign: one sign, or parentheses."""
    signs = [found[name] for name in ("before", "inside", "after") if found[name]]
    is_open, is_closed = bool(found["open"]), bool(found["close"])
    if is_open != is_closed or len(signs) + is_open > 1:
        raise ValueError("a number with two signs, or half a parenthesis")
    if found["currency"] and found["unit"]:
        raise ValueError("a number with two currencies")
    digits = "".join(c for c in found["whole"] or "0" if c.isdigit())
    decimals = "".join(c for c in found["decimals"] or "" if c.isdigit())
    amount = Decimal((f"{digits}.{decimals}" if decimals else digits) + (found["exponent"] or ""))
    # Not `-amount`: arithmetic keeps 28 digits.
    return amount.copy_negate() if is_open or signs == ["-"] else amount


def _form(decimal: str, thousands: str | None) -> Pattern[str]:
    """Groups have three digits, or as in India two of them and three at the end; decimals may be a dash."""
    point = re.escape(decimal)
    groups = ""
    if thousands is not None:
        between = {" ": " ", "'": _APOSTROPHES}.get(thousands, re.escape(thousands))
        groups = rf"\d{{1,3}}(?:{between}\d{{3}})+|\d{{1,2}}(?:{between}\d{{2}})+{between}\d{{3}}|"
    return re.compile(
        rf"(?P<open>\()? ?(?P<before>[+-])? ?(?P<currency>{_CURRENCY})? ?(?P<inside>[+-])? ?"
        rf"(?=\d|{point}\d)(?P<whole>{groups}\d+)?(?P<decimals>{point}(?:[-\u2013\u2014]{{1,2}}|\d*))?"
        rf"(?P<exponent>[eE][+-]?\d{{1,4}})?(?P<after>-)? ?(?P<percent>%)? ?(?P<unit>{_CURRENCY})? ?(?P<close>\))?",
        re.ASCII,
    )
