"""What a contract costs: records mapped with and without rules, in turns, by the time of the processor."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

from bench.speed.outcome import Outcome
from etl import payload
from etl.declare.source import parse
from etl.mapping.mapper import Mapper
from etl.records import StoredRecord

if TYPE_CHECKING:
    from bench.speed.arms import Bench
    from bench.speed.sizes import Sizes

RECORDS, ROUNDS = 20_000, 9
SOURCE = {
    "name": "shop",
    "type": "csv",
    "file": "shop.csv",
    "map": {
        "external_id": "id",
        "title": "title",
        "amount": "price",
        "quantity": "stock",
        "rating": "rating",
        "category": "category",
        "url": "url",
        "author": "author",
        "published_at": "made",
    },
}
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "3 required": {name: {"required": True} for name in ("title", "amount", "category")},
    "3 ranges": {"amount": {"min": 0, "max": 100_000}, "quantity": {"min": 0}, "rating": {"min": 0, "max": 5}},
    "2 enums": {"category": {"enum": ["a", "b", "c"]}, "author": {"enum": ["x", "y"]}},
    "1 length": {"title": {"max_length": 200}},
    "1 pattern": {"url": {"pattern": "^https://"}},
}


def contracts(_: Bench, __: Sizes) -> list[Outcome]:
    """Each kind of rule, and all together."""
    together: dict[str, dict[str, Any]] = {}
    for rules in KINDS.values():
        for name, rule in rules.items():
            together[name] = {**together.get(name, {}), **rule}
    records = _records()
    return [_cost(kind, rules, records) for kind, rules in KINDS.items()] + [_cost("all 10 rules", together, records)]


def _cost(kind: str, rules: dict[str, dict[str, Any]], records: list[StoredRecord]) -> Outcome:
    plain, ruled = Mapper(parse(SOURCE)), Mapper(parse({**SOURCE, "expect": rules}))
    rounds = [(_seconds(ruled, records), _seconds(plain, records)) for _ in range(ROUNDS)]
    micros = [(1e6 * ours / RECORDS, 1e6 * reference / RECORDS) for ours, reference in rounds]
    return Outcome.of(f"contract, {kind} : none", "µs/record", micros, "<= 1.25")


def _seconds(mapper: Mapper, records: list[StoredRecord]) -> float:
    gc.disable()
    started = time.process_time()
    assert not mapper.normalize(records).rejects
    took = time.process_time() - started
    gc.enable()
    return took


def _records() -> list[StoredRecord]:
    return [_record(n) for n in range(RECORDS)]


def _record(n: int) -> StoredRecord:
    content = payload.encode(
        {
            "id": str(n),
            "title": f"thing {n}",
            "price": f"{n % 1000}.5",
            "stock": str(n % 50),
            "rating": "4.5",
            "category": "abc"[n % 3],
            "author": "xy"[n % 2],
            "url": f"https://shop.test/{n}",
            "other": "more",
            "made": "2026-01-01T00:00:00Z",
        }
    )
    return StoredRecord(n, "2026-01-01", str(n), payload.digest(content), content.decode())
