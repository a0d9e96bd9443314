"""Credentials that are written into a source."""

from __future__ import annotations

from typing import Any

import pytest

from etl.declare.credentials import literal_credentials, masked


def source(**request: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "api", "request": {"url": "https://a.example/x", **request}}


@pytest.mark.parametrize(
    ("request_", "places"),
    [
        ({"auth": {"kind": "bearer", "token": "abc"}}, ["request.auth.token"]),
        ({"auth": {"kind": "basic", "username": "me", "password": "abc"}}, ["request.auth.password"]),
        ({"auth": {"kind": "header", "name": "x-key", "value": "abc"}}, ["request.auth.value"]),
        (
            {
                "auth": {
                    "kind": "oauth2_client_credentials",
                    "token_url": "https://t/",
                    "client_id": "i",
                    "client_secret": "s",
                }
            },
            ["request.auth.client_secret"],
        ),
        ({"headers": {"Authorization": "Bearer abc"}}, ["request.headers.Authorization"]),
        ({"headers": {"X-Api-Key": "abc", "Accept": "text/csv"}}, ["request.headers.X-Api-Key"]),
        ({"headers": {"Cookie": "a=b"}}, ["request.headers.Cookie"]),
        ({"params": {"api_key": "abc", "key": "title"}}, ["request.params.api_key"]),
        ({"params": {"access_token": "abc"}}, ["request.params.access_token"]),
        ({"body": {"filter": {"client_secret": "abc"}}}, ["request.body.filter.client_secret"]),
        ({"url": "https://a.example/x?limit=5&apikey=abc"}, ["request.url"]),
    ],
)
def test_a_credential_is_found_where_it_stands_and_not_shown(request_: dict[str, Any], places: list[str]) -> None:
    document = source(**request_)
    assert literal_credentials(document) == places
    assert "abc" not in str(masked(document))
    assert "${MISSING_" in str(masked(document))


@pytest.mark.parametrize(
    "request_",
    [
        {"auth": {"kind": "bearer", "token": "${TOKEN}"}},
        {"headers": {"Authorization": "Token ${TOKEN}"}},
        {"params": {"key": "title", "token_count": 5, "per_page": "100"}},
        {"url": "https://a.example/tokens?api_key=${KEY}"},
        {"headers": {"Accept": "application/json", "X-Tokenizer": "plain"}},
    ],
)
def test_what_is_none_stays(request_: dict[str, Any]) -> None:
    assert literal_credentials(source(**request_)) == []
    assert masked(source(**request_)) == source(**request_)


def test_of_an_address_only_the_credential_is_hidden() -> None:
    shown = masked(source(url="https://a.example/x?limit=5&apikey=abc&sort=name"))
    assert shown["request"]["url"] == "https://a.example/x?limit=5&apikey=${MISSING_URL}&sort=name"
