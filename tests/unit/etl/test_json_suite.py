"""What JSONTestSuite says of a JSON parser, asked of ours."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from config.settings import PROJECT
from etl import payload
from etl.errors import FormatError, RecordError

FILE = PROJECT / "tests/suites/json_parsing.json"
SUITE = {
    name.removesuffix(".json"): text.encode("latin-1") for name, text in json.loads(FILE.read_text("ascii")).items()
} | {
    "n_structure_100000_opening_arrays": b"[" * 100_000,
    "n_structure_open_array_object": b'[{"":' * 50_000 + b"\n",
}

pytestmark = pytest.mark.timeout(10)


def cases(*kinds: str) -> list[str]:
    return [name for name in SUITE if name.startswith(kinds)]


def test_the_suite_is_whole() -> None:
    assert [len(cases(kind)) for kind in ("y_", "n_", "i_")] == [95, 188, 35]


@pytest.mark.parametrize("name", cases("y_"))
def test_json_is_read(name: str) -> None:
    payload.decode(SUITE[name])


@pytest.mark.parametrize("name", cases("n_"))
def test_what_is_not_json_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        payload.decode(SUITE[name])


@pytest.mark.parametrize("name", cases("i_"))
def test_what_parsers_disagree_on_is_read_or_refused(name: str) -> None:
    with suppress(FormatError):
        payload.decode(SUITE[name])


@pytest.mark.parametrize("name", cases("y_", "i_"))
def test_what_is_read_is_stored_or_rejected(name: str) -> None:
    try:
        value = payload.decode(SUITE[name])
    except FormatError:
        return
    with suppress(RecordError):
        assert isinstance(payload.encode(value), bytes)
