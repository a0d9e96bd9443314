"""Errors as callers see them."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import NoReturn

import pytest
from flask import Flask
from flask.testing import FlaskClient

from etl.errors import AlreadyActiveError, ETLError, FormatError
from web.errors import STATUSES, InvalidRequestError, register_error_handlers, status_of


class AlreadyQueuedError(AlreadyActiveError):
    """One that the table does not name."""


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    app = Flask("test")
    register_error_handlers(app)

    @app.get("/queued")
    def queued() -> NoReturn:
        raise AlreadyQueuedError("already queued", active_run_id="7", inner="x")

    @app.get("/defect")
    def defect() -> NoReturn:
        raise FormatError("not for a caller")

    with app.test_client() as made:
        yield made


def test_a_subclass_has_the_status_of_its_base(client: FlaskClient) -> None:
    assert status_of(AlreadyQueuedError("no")) is STATUSES[AlreadyActiveError]
    response = client.get("/queued")
    assert response.status_code == HTTPStatus.CONFLICT
    assert response.content_type == "application/problem+json"
    body = response.get_json(force=True)
    assert (body["type"], body["active_run_id"]) == ("urn:kasparro:problem:already_active", "7")
    assert "inner" not in body


def test_an_error_of_no_status_is_a_defect(client: FlaskClient) -> None:
    assert status_of(ETLError("no")) is None
    response = client.get("/defect")
    assert response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert b"not for a caller" not in response.data


@pytest.mark.parametrize("kind", STATUSES)
def test_each_error_of_the_table_has_its_own_status(kind: type[ETLError]) -> None:
    error = InvalidRequestError("query", "a", "no") if kind is InvalidRequestError else kind("no")
    assert status_of(error) is STATUSES[kind]
