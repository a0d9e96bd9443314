"""From a source to items that can be queried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench.speed import data, peers, reference
from bench.speed.arms import Memory, settle, timed_run
from bench.speed.outcome import Outcome
from testkit.fake_server import FakeServer, Response

if TYPE_CHECKING:
    from bench.speed.arms import Bench
    from bench.speed.sizes import Sizes
    from testkit.service import Service

# Paragraphs of an entry in each feed.
FEEDS = {"headlines": 0, "articles": 10}


def csv_source(path: Path) -> dict[str, Any]:
    return {"name": "products", "type": "csv", "file": str(path), "map": data.MAPPING}


def declare(service: Service, *sources: dict[str, Any]) -> None:
    done = service.declare(yaml.safe_dump({"sources": list(sources)}))
    assert done.returncode == 0, done.stderr


def load(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """A CSV file, with 2 worker processes and with 1, beside hand-written SQL and, where installed, other tools."""
    path = bench.folder / "products.csv"
    size = data.write_csv(path, data.products(sizes.rows))
    halves = data.halves(path)
    by_hand, by_two, one_process, peaks = [], [], [], []
    by_others: dict[str, list[tuple[float, float]]] = {}
    for _ in range(sizes.rounds):
        hand = sizes.rows / reference.load_csv(bench.database(), path)
        seconds, peak = loaded(bench, path, 2)
        ours = sizes.rows / seconds
        two = sizes.rows / reference.load_csv_on_two_connections(bench.database(), halves)
        for name, load_with in peers.LOADERS.items():
            taken = load_with(bench.database(), path)
            if taken is not None:
                by_others.setdefault(name, []).append((ours, sizes.rows / taken))
        alone, _ = loaded(bench, path, 1)
        by_hand.append((ours, hand))
        by_two.append((ours, two))
        one_process.append((ours, sizes.rows / alone))
        peaks.append(peak)
    detail = {"rows": sizes.rows, "bytes": size, "peak_mb": max(peaks)}
    return [
        Outcome.of("csv, 2 processes : SQL by hand", "records/s", by_hand, ">= 1.0", **detail),
        Outcome.of("csv, 2 processes : 1 process", "records/s", one_process, ">= 1.5"),
        Outcome.of("csv, 2 processes : SQL, 2 connections", "records/s", by_two, ">= 0.75"),
        *(
            Outcome.of(f"csv, 2 processes : {name}", "records/s", rounds, peers.AIMS.get(name, ""))
            for name, rounds in by_others.items()
        ),
    ]


def loaded(bench: Bench, path: Path, processes: int) -> tuple[float, float]:
    """Seconds, and the largest worker's memory in MB."""
    with bench.service(processes=processes) as service:
        declare(service, csv_source(path))
        memory = Memory(service)
        memory.start()
        seconds, run = timed_run(service, "products")
        memory.stop()
        assert run["records_inserted"] == run["records_extracted"], run
    return seconds, memory.peak / 2**20


def again(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """The same file with one row changed, and with one in a hundred."""
    rounds = [_again(bench, sizes.rows) for _ in range(sizes.rounds)]
    first, one, hundredth, same = zip(*rounds, strict=True)
    rates, once, never = ([sizes.rows / seconds for seconds in each] for each in (first, one, same))
    return [
        Outcome.of("one row changed : first run", "records/s", list(zip(once, rates, strict=True)), ">= 3.0"),
        Outcome.of("1 % changed : one row changed", "s", list(zip(hundredth, one, strict=True)), "<= 1.5"),
        Outcome.of("nothing changed : first run", "records/s", list(zip(never, rates, strict=True))),
    ]


def _again(bench: Bench, count: int) -> tuple[float, float, float, float]:
    """Seconds of the first run, with one row changed, with one in a hundred, and with none."""
    path = bench.folder / "products.csv"
    rows = list(data.products(count))
    data.write_csv(path, iter(rows))
    with bench.service() as service:
        declare(service, csv_source(path))
        first, _ = timed_run(service, "products")
        rows[len(rows) // 2]["price"] = "0.01"
        data.write_csv(path, iter(rows))
        settle(service.database_url)
        written = service.sql("SELECT count(*) FROM raw_data")[0]
        one, run = timed_run(service, "products")
        assert run["records_updated"] == 1, run
        assert service.sql("SELECT count(*) FROM raw_data")[0] == written + 1
        for row in rows[::100]:
            row["price"] = "0.02"
        data.write_csv(path, iter(rows))
        settle(service.database_url)
        hundredth, _ = timed_run(service, "products")
        settle(service.database_url)
        same, _ = timed_run(service, "products")
    return first, one, hundredth, same


def api(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """A JSON API in pages of 1,000, and feeds, against a plain loop and against the file's rate per MB."""
    count = sizes.rows * 2 // 5
    path = bench.folder / "products.csv"
    size = data.write_csv(path, data.products(count))
    loops: list[tuple[float, float]] = []
    by_file: dict[str, list[tuple[float, float]]] = {name: [] for name in ("paged", *FEEDS)}
    with FakeServer("HTTP/1.1") as fake_server:
        sources, sizes_of = answered(fake_server, count, sizes.entries)
        megabytes = {name: each / 1e6 for name, each in {**sizes_of, "products": size}.items()}
        for _ in range(sizes.rounds):
            loop = reference.load_api(bench.database(), fake_server.url + "/paged")
            seconds = fetched(bench, [csv_source(path), *sources])
            loops.append((count / seconds["paged"], count / loop))
            rates = {name: megabytes[name] / seconds[name] for name in seconds}
            for name, pairs in by_file.items():
                pairs.append((rates[name], rates["products"]))
    return [
        Outcome.of("json pages : a plain loop", "records/s", loops, ">= 3.0"),
        Outcome.of("json pages : csv", "MB/s", by_file["paged"], ">= 0.6"),
        *(Outcome.of(f"feed of {name} : csv", "MB/s", by_file[name], ">= 0.6") for name in FEEDS),
    ]


def answered(fake_server: FakeServer, count: int, entries: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Answer with so many products in pages, and with feeds of so many entries; their sources, and sizes in bytes."""
    pages = data.json_pages(count, 1000)
    url = fake_server.on("/paged", lambda asked: Response(pages[int(asked.query["page"]) - 1]))
    request = {"url": url}
    sources = [{"name": "paged", "type": "api", "request": request, "paginate": {"style": "page"}, "map": data.MAPPING}]
    sizes = {"paged": sum(map(len, pages))}
    for name, paragraphs in FEEDS.items():
        feed = data.feed(entries, paragraphs)
        sources.append({"name": name, "type": "rss", "request": {"url": fake_server.on(f"/{name}", Response(feed))}})
        sizes[name] = len(feed)
    return sources, sizes


def fetched(bench: Bench, sources: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each source, loaded one after the other."""
    seconds = {}
    with bench.service() as service:
        declare(service, *sources)
        for name in (source["name"] for source in sources):
            seconds[name], run = timed_run(service, name)
            assert run["records_inserted"] == run["records_extracted"], run
            settle(service.database_url)
    return seconds


def memory(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """The largest worker process, for a file and for one many times its size."""
    peaks = []
    for count in (sizes.rows // 5, sizes.large):
        path = bench.folder / "large.csv"
        data.write_csv(path, data.products(count))
        peaks.append(loaded(bench, path, 2)[1])
        path.unlink()
    small, large = peaks
    detail = {"rows": [sizes.rows // 5, sizes.large]}
    return [Outcome("memory, large file : small file", large, small, "MB", large / small, "<= 1.1", detail)]


def growth(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """Cost per record at several sizes, up to the largest."""
    found = []
    for count in sorted({10_000, *(size for step in range(6) if (size := sizes.large // 5**step) > 10_000)}):
        path = bench.folder / "sized.csv"
        data.write_csv(path, data.products(count))
        seconds, _ = loaded(bench, path, 2)
        found.append((count, seconds))
        path.unlink()
    base = found[-2][1] / found[-2][0] if len(found) > 1 else found[0][1] / found[0][0]
    last_count, last_seconds = found[-1]
    ratio = last_seconds / last_count / base
    points = {"points": [{"rows": rows, "seconds": round(seconds, 3)} for rows, seconds in found]}
    return [
        Outcome(
            "cost per record, largest : one before",
            last_seconds / last_count * 1e6,
            base * 1e6,
            "us",
            ratio,
            "",
            points,
        )
    ]
