"""Addresses of alerts, their names, who hears of what, and what proves that a message is ours."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from config.settings import SettingError, read
from etl.alerts.destination import chosen, parse_destinations
from etl.alerts.notify import without_parts
from etl.alerts.signature import headers, secret_bytes, signature

PUBLISHED = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = "whsec_" + "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


def test_addresses_and_their_tags() -> None:
    found = parse_destinations(
        "https://ops.example/hook?x=a,b\nmoney,a-b_1=mailto://me@example.com slack://a/b/c", ("mailto", "slack")
    )
    assert [(one.scheme, sorted(one.tags), one.is_webhook) for one in found] == [
        ("https", [], True),
        ("mailto", ["a-b_1", "money"], False),
        ("slack", [], False),
    ]
    assert found[0].url == "https://ops.example/hook?x=a,b"


@pytest.mark.parametrize("written", ["https://ops.example/secret1", "slack://secret1/b/c", "mailto://secret1:x@host"])
def test_names_show_no_secret_and_tell_addresses_apart(written: str) -> None:
    one, other = parse_destinations(f"{written} {written}2", ("slack", "mailto"))
    assert "secret1" not in one.name + repr(one)
    assert one.name != other.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense-s3cret", "number 1"),
        ("https://ok.example/ mailto://s3cret@host", "ALERT_SCHEMES"),
        ("https://s3cret@host/", "number 1"),
        ("https:///s3cret", "number 1"),
        ("https://host:99999/s3cret", "number 1"),
        ("MONEY=https://host/s3cret", "number 1"),
        ("=https://host/s3cret", "number 1"),
        ("file:///etc/s3cret", "ALERT_SCHEMES"),
    ],
)
def test_bad_addresses_are_refused_without_being_shown(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_destinations(text, ())
    assert "s3cret" not in str(caught.value)


def test_who_hears_of_what() -> None:
    every, money, both = parse_destinations("https://a/ money=https://b/ money,art=https://c/", ())
    assert chosen((every, money, both), ["money"]) == [every, money, both]
    assert chosen((every, money, both), ["art", "x"]) == [every, both]
    assert chosen((every, money, both), []) == [every]
    # Rather all than none.
    assert chosen((money, both), ["x"]) == [money, both]
    assert chosen((), ["x"]) == []


def test_a_signature_is_that_of_the_published_example() -> None:
    signed = signature(secret_bytes(PUBLISHED), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_headers_of_a_message() -> None:
    sent = headers(secret_bytes(KEY), "some-id", datetime(2026, 5, 4, 12, tzinfo=UTC), b"{}")
    assert (sent["webhook-id"], sent["webhook-timestamp"]) == ("some-id", "1777896000")


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", KEY[6:], "whsec_no base64!", "whsec_" + "a" * 200])
def test_secrets_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected whsec_"):
        secret_bytes(text)


def test_settings_of_alerts() -> None:
    given = read({"ALERT_URLS": "https://a/ mailto://b@c", "ALERT_SCHEMES": "mailto://, Slack", "ALERT_SECRET": KEY})
    assert [one.scheme for one in given.alert_urls] == ["https", "mailto"]
    assert given.alert_schemes == ("mailto", "slack")
    assert given.alert_secret == secret_bytes(KEY)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ALERT_URLS": "https://a/"}, "ALERT_URLS: .*ALERT_SECRET"),
        ({"ALERT_URLS": "mailto://a@b"}, "ALERT_URLS: .*ALERT_SCHEMES"),
        ({"ALERT_SECRET": "x"}, "ALERT_SECRET: expected whsec_"),
        ({"ALERT_DIGEST": "soon"}, "ALERT_DIGEST"),
        ({"ALERT_REMINDER": "0s"}, "ALERT_REMINDER"),
        ({"HEARTBEAT_URL": "ftp://x/"}, "HEARTBEAT_URL"),
        ({"HEARTBEAT_URL": "https://"}, "HEARTBEAT_URL"),
    ],
)
def test_bad_settings_of_alerts_are_named(values: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read(values)


def test_a_reason_shows_no_part_of_an_address() -> None:
    reason = "Failed to send to slack://T0KEN1/t%6Fken2 by me@example.com with TOKEN2X"
    assert (
        without_parts(reason, "slack://T0KEN1/t%6Fken2/TOKEN2X?x=me")
        == "Failed to send to slack://…/… by me@example.com with …"
    )
