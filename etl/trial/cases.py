"""Tests of sources without a network: given answers go in, and what they become is held against what is expected."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from etl import secrets
from etl.declare.source import parse, secrets_of
from etl.errors import ConfigError
from etl.extract import target_for
from etl.extract.context import Context
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter, LocalHostStates
from etl.http.call import Policy
from etl.http.client import HttpClient
from etl.mapping.mapper import Mapper
from etl.mapping.observe import map_records
from etl.records import Checkpoint
from etl.trial.collect import TrialReporter, collect
from etl.trial.offline import Answer, offline_session
from etl.trial.report import as_item, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.trial.collect import Collected

MOST_RECORDS = 10_000
SECONDS = 60.0
_PATIENT = 3600.0


class GivenAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is answered to a request: a status, headers, and a body as `json`, as text, or from a file near the test."""

    url: str
    method: str | None = None
    status: int = 200
    headers: dict[str, str] = {}
    json: Any = msgspec.UNSET
    body: str | None = None
    file: str | None = None


class Reject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record that is to be rejected: by which rule on which field, and its id if it has one."""

    field: str
    rule: str
    external_id: str | None = None


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to come of it. Of an item only what is given is looked at; without a list nothing is said of it."""

    items: list[dict[str, Any]] | None = None
    rejects: list[Reject] | None = None
    error: str | None = None
    requests: int | None = None


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A test of a source: the name of one that is declared, or a whole document."""

    source: str | dict[str, Any]
    expect: Expected
    name: str | None = None
    answers: list[GivenAnswer] = []
    files: dict[str, str] = {}
    secrets: dict[str, str] = {}
    now: datetime | None = None


def failures(case: Case, folder: Path, declared: Callable[[str], dict[str, Any]]) -> list[str]:
    """What of a case is not as it is expected, in lines; none if all is.

    Args:
        case: the test.
        folder: where files that it names are.
        declared: the document of a source by its name.

    Raises:
        ConfigError: the source, or the case, is not valid.
    """
    source = parse(declared(case.source) if isinstance(case.source, str) else case.source)
    now, reporter = case.now or datetime.now(UTC), TrialReporter(time.monotonic() + SECONDS)
    mapper = Mapper(source)
    with tempfile.TemporaryDirectory(prefix="kasparro-test-") as place:
        base = Path(place).resolve()
        _write(case.files, base)
        client = _client([_answer(one, folder) for one in case.answers], reporter)
        context = Context(
            connect=lambda: client,
            reporter=reporter,
            scratch=base / ".copy",
            roots=(base,),
            base=base,
            checkpoint=Checkpoint(),
            now=now,
        )
        values = {name: case.secrets.get(name, name) for name in secrets_of(source)}
        secrets.know({})
        found = collect(source, target_for(source, values), context, mapper, MOST_RECORDS)
    mapped = map_records(Mapper(source, fails=False), stored(found, now))
    items = [as_item(one.record.external_id, one.item) for one in mapped.staged]
    rejects = [
        Reject(fault.field, fault.rule, one.record.external_id) for one in mapped.rejects for fault in one.faults
    ]
    rejects += [Reject(bad.field, bad.rule) for bad in found.bad]
    return list(_differences(case.expect, found, items, rejects, len(reporter.requests)))


def _write(files: dict[str, str], base: Path) -> None:
    for name, content in files.items():
        path = (base / name).resolve()
        if not path.is_relative_to(base):
            raise ConfigError(f"`files.{name}` lies outside of the folder of the test")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def _answer(given: GivenAnswer, folder: Path) -> Answer:
    headers = dict(given.headers)
    if given.json is not msgspec.UNSET:
        headers.setdefault("Content-Type", "application/json")
        body = msgspec.json.encode(given.json)
    elif given.file is not None:
        body = _read(folder / given.file)
    else:
        body = (given.body or "").encode()
    return Answer(given.url, body, given.status, {name.lower(): value for name, value in headers.items()}, given.method)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"`answers`: {path}: {error.strerror}") from error


def _client(answers: list[Answer], reporter: TrialReporter) -> HttpClient:
    limiter = HostLimiter(LocalHostStates(), BreakerPolicy(10**6, 1.0), "test")
    policy = Policy(0, (), time.monotonic() + _PATIENT)
    return HttpClient(policy, limiter, reporter, sleep=lambda _: None, connect=partial(offline_session, answers))


def _differences(
    expected: Expected, found: Collected, items: list[dict[str, Any]], rejects: list[Reject], requests: int
) -> Iterator[str]:
    error = found.failure.code if found.failure else None
    if error != expected.error:
        said = f": {found.failure.message}" if found.failure else ""
        yield f"error: expected {expected.error}, met {error}{said}"
    if expected.requests is not None and requests != expected.requests:
        yield f"requests: expected {expected.requests}, met {requests}"
    if expected.items is not None:
        yield from _items(expected.items, items)
    if expected.rejects is not None:
        left = list(rejects)
        for one in expected.rejects:
            met = next((other for other in left if _is_meant(one, other)), None)
            if met is not None:
                left.remove(met)
            else:
                yield f"rejects: expected {_shown(one)}, which is not among them"
        yield from (f"rejects: {_shown(one)} was not expected" for one in left)


def _is_meant(expected: Reject, met: Reject) -> bool:
    """Whether a reject is the one that is expected; without an id it may be that of any record."""
    same = (expected.field, expected.rule) == (met.field, met.rule)
    return same and expected.external_id in {None, met.external_id}


def _items(expected: list[dict[str, Any]], items: list[dict[str, Any]]) -> Iterator[str]:
    if len(expected) != len(items):
        yield f"items: expected {len(expected)}, met {len(items)}"
    for number, (wanted, item) in enumerate(zip(expected, items, strict=False), 1):
        for name, value in wanted.items():
            if name not in item:
                yield f"items: {number}: `{name}` is no field of an item"
            elif not _same(str(value) if name == "external_id" else value, item[name]):
                yield f"items: {number}: {name}: expected {value!r}, met {_plain(item[name])!r}"


def _same(expected: Any, met: Any) -> bool:
    """Whether a value is as it is expected; of metadata only what is given is looked at."""
    if isinstance(expected, dict) and isinstance(met, dict):
        return all(name in met and _same(value, met[name]) for name, value in expected.items())
    if isinstance(met, datetime):
        return _moment(expected) == met
    if isinstance(met, Decimal) or (isinstance(met, float | int) and not isinstance(met, bool)):
        try:
            return Decimal(str(expected)) == Decimal(str(met)) and not isinstance(expected, bool)
        except InvalidOperation:
            return False
    return bool(expected == met)


def _moment(expected: Any) -> datetime | None:
    """A time as it stands in YAML, which may have read it; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(str(expected))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal | datetime) else value


def _shown(one: Reject) -> str:
    return f"{one.field or 'the record'} by {one.rule}" + (f" of {one.external_id}" if one.external_id else "")
