"""Two versions of the service in turns, within one run: what counts is the ratio within each pair."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bench.speed import data
from bench.speed.arms import Bench
from bench.speed.comparison import Comparison, in_turns
from bench.speed.loading import FEEDS, answered, fetched, loaded
from bench.speed.reading import FIRST, deep_page, filled, latency, rate
from bench.speed.running import unchanged_rate
from testkit.fake_server import FakeServer
from testkit.service import make_database
from testkit.tree import PRESENT, checked_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.speed.comparison import Figures, Measure
    from bench.speed.sizes import Sizes
    from testkit.service import Servers

# Answers of which the median is taken.
LOOKS = 600


def compare(
    sides: tuple[Bench, Bench], name: str, sizes: Sizes, count: int, least: float | None = None
) -> list[Comparison]:
    """So many pairs of one benchmark."""
    old, new = sides
    least = LEAST.get(name, 0.95) if least is None else least
    with MEASURES[name](old, sizes) as measure_old, MEASURES[name](new, sizes) as measure_new:
        pairs = in_turns(measure_old, measure_new, count)
    names = pairs[0][0]
    return [Comparison(each, [(before[each], after[each]) for before, after in pairs], least) for each in names]


@contextlib.contextmanager
def both(servers: Servers, folder: Path, commit: str) -> Iterator[tuple[Bench, Bench]]:
    """A bench for the commit's version, and one for the present one."""
    with checked_out(commit, folder / "tree") as tree:
        tree.run("db", "migrate", DATABASE_URL=make_database(servers, "migrated_old"))
        sides = (Bench(servers, folder / "old", tree, "migrated_old"), Bench(servers, folder / "new", PRESENT))
        for side in sides:
            side.folder.mkdir()
        yield sides


@contextlib.contextmanager
def _load(bench: Bench, sizes: Sizes) -> Iterator[Measure]:
    path = bench.folder / "products.csv"
    data.write_csv(path, data.products(sizes.rows))
    yield lambda: {"csv, records/s": sizes.rows / loaded(bench, path, 2)[0]}


@contextlib.contextmanager
def _api(bench: Bench, sizes: Sizes) -> Iterator[Measure]:
    count = sizes.rows * 2 // 5
    with FakeServer("HTTP/1.1") as fake_server:
        sources, bytes_of = answered(fake_server, count, sizes.entries)

        def measure() -> Figures:
            seconds = fetched(bench, sources)
            feeds = {f"feed of {name}, MB/s": bytes_of[name] / 1e6 / seconds[name] for name in FEEDS}
            return {"json pages, records/s": count / seconds["paged"], **feeds}

        yield measure


@contextlib.contextmanager
def _tiny(bench: Bench, sizes: Sizes) -> Iterator[Measure]:
    yield lambda: {"unchanged runs, runs/s": unchanged_rate(bench, sizes.tiny)}


@contextlib.contextmanager
def _reads(bench: Bench, sizes: Sizes) -> Iterator[Measure]:
    with filled(bench, sizes, f"reads_{bench.folder.name}") as (service, written):
        deep = deep_page(service, sizes)
        yield lambda: {
            "first page, pages/s": rate(service, FIRST, sizes.seconds),
            "deep page by one client, pages/s": 1e3 / latency(service, deep, LOOKS),
            "GET /stats, nothing written, per s": 1e3 / latency(service, "/stats", LOOKS),
            "GET /stats after a write, per s": 1e3 / latency(service, "/stats", LOOKS, before=written),
        }


MEASURES = {"load": _load, "api": _api, "tiny": _tiny, "reads": _reads}
# Where the machine's noise is larger than elsewhere.
LEAST = {"reads": 0.9}
