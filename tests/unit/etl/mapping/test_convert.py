from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from etl.mapping.convert import Moment, address, identifier, number, tags, text

BERLIN = Moment(ZoneInfo("Europe/Berlin"), ("%d.%m.%Y",))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        (" 12 ", Decimal(12)),
        ("-1.50", Decimal("-1.50")),
        (".5", Decimal(".5")),
        ("1e3", Decimal("1E+3")),
        (7, Decimal(7)),
        (Decimal("1.10"), Decimal("1.10")),
    ],
)
def test_numbers(value: object, expected: Decimal | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    "value",
    ["1,5", "1 000", "NaN", "inf", "0x10", "1e9999", "1." + "0" * 17_000, True, [], {}, "12 EUR", "１２x"],
)
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="number"):
        number(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-03-01", datetime(2024, 2, 29, 23, tzinfo=UTC)),
        ("2024-07-01T12:00:00", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        ("2024-07-01T12:00:00Z", datetime(2024, 7, 1, 12, tzinfo=UTC)),
        ("2024-07-01 12:00:00+05:30", datetime(2024, 7, 1, 6, 30, tzinfo=UTC)),
        ("01.07.2024", datetime(2024, 6, 30, 22, tzinfo=UTC)),
        ("20240701", datetime(2024, 6, 30, 22, tzinfo=UTC)),
        (1517966773840, datetime(2018, 2, 7, 1, 26, 13, 840000, tzinfo=UTC)),
        (1517966773, datetime(2018, 2, 7, 1, 26, 13, tzinfo=UTC)),
        ("1517966773", datetime(2018, 2, 7, 1, 26, 13, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("Tue, 06 Feb 2018 08:04:11 GMT", datetime(2018, 2, 6, 8, 4, 11, tzinfo=UTC)),
        ("", None),
        (None, None),
    ],
)
def test_times(value: object, expected: datetime | None) -> None:
    assert BERLIN(value) == expected


@pytest.mark.parametrize(
    "value", ["2024", "31.02.2024", "soon", "2024-02-30", True, [], 10**30, "1234567", "07/01/2024"]
)
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"time|expected"):
        BERLIN(value)


def test_texts() -> None:
    assert text("  as it is ") == "  as it is "
    assert text(Decimal("1.10")) == "1.10"
    assert text(True) == "true"
    assert text("") is None
    with pytest.raises(ValueError, match="an object"):
        text({})


def test_identifiers() -> None:
    assert identifier(" a ") == "a"
    assert identifier(5) == "5"
    assert identifier("  ") is None
    with pytest.raises(ValueError, match="1000 bytes"):
        identifier("ä" * 501)


def test_tags() -> None:
    assert tags("a, b;c|d") == ["a", "b", "c", "d"]
    assert tags(["a", 1, None]) == ["a", "1"]
    assert tags([]) is None
    with pytest.raises(ValueError, match="list"):
        tags(3)


@pytest.mark.parametrize(
    "value",
    [
        *("https://a.test/x", "/x", "localhost:8000/x", "mailto:a@b", "urn:isbn:1", "javascript", "a/javascript:x"),
        *("data:image/png;base64,AAAA", "database:1", "x\tjavascript:y"),
    ],
)
def test_addresses_are_kept_as_they_are(value: str) -> None:
    assert address(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("javascript:alert(1)", "JavaScript:alert(1)", " javascript:x", "\x01javascript:x", "java\nscript:x"),
        *("\tj\ta\rvascript:x", "vbscript:x", "data:text/html,<script>", "data:image/svg+xml,<svg>", "data:,x"),
    ],
)
def test_an_address_that_would_run_a_script_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="runs a script"):
        address(value)
