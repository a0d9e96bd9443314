from decimal import Decimal

import pytest

from etl.mapping.convert import address, identifier, number, tags, text


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
