"""From a source to items that can be queried."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench.outside import Answered, Outside
from bench.speed import data, peers, reference
from bench.speed.arms import Memory, settle, timed_run
from bench.speed.outcome import Outcome

if TYPE_CHECKING:
    from bench.rig import Service
    from bench.speed.arms import Bench
    from bench.speed.sizes import Sizes


def csv_source(path: Path) -> dict[str, Any]:
    return {"name": "products", "type": "csv", "file": str(path), "map": data.MAPPING}


def declare(service: Service, *sources: dict[str, Any]) -> None:
    done = service.declare(yaml.safe_dump({"sources": list(sources)}))
    assert done.returncode == 0, done.stderr


def load(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """A CSV file, with 2 worker processes and with 1, beside hand-written SQL and, where installed, dlt."""
    path = bench.folder / "products.csv"
    size = data.write_csv(path, data.products(sizes.rows))
    rounds = []
    for _ in range(sizes.rounds):
        by_hand = reference.load_csv(bench.database(), path)
        two, memory = _loaded(bench, path, 2)
        one, _ = _loaded(bench, path, 1)
        rounds.append((by_hand, two, one, memory))
    by_hand, two, one = (statistics.median(each[n] for each in rounds) for n in range(3))
    rate = sizes.rows / two
    detail = {"rows": sizes.rows, "bytes": size, "peak_mb": max(each[3] for each in rounds)}
    found = [
        Outcome(
            "csv, 2 processes : SQL by hand", rate, sizes.rows / by_hand, "records/s", by_hand / two, ">= 1.0", detail
        ),
        Outcome("csv, 2 processes : 1 process", rate, sizes.rows / one, "records/s", one / two, ">= 1.5"),
    ]
    seconds = peers.load_with_dlt(bench.database(), path)
    if seconds is not None:
        ratio = seconds / two
        found.append(Outcome("csv, 2 processes : dlt merge", rate, sizes.rows / seconds, "records/s", ratio, ">= 3.0"))
    return found


def _loaded(bench: Bench, path: Path, processes: int) -> tuple[float, float]:
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
    first, one, hundredth, same = (statistics.median(each[n] for each in rounds) for n in range(4))
    return [
        Outcome("one row changed : first run", one, first, "s", first / one, ">= 3.0"),
        Outcome("1 % changed : one row changed", hundredth, one, "s", hundredth / one, "<= 1.5"),
        Outcome("nothing changed : first run", same, first, "s", first / same),
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
    pages = data.json_pages(count, 1000)
    path = bench.folder / "products.csv"
    csv_size = data.write_csv(path, data.products(count))
    feeds = {"headlines": data.feed(sizes.entries, 0), "articles": data.feed(sizes.entries, 10)}
    with Outside() as outside:
        outside.on("/p", lambda asked: Answered(pages[int(asked.query["page"]) - 1]))
        for name, feed in feeds.items():
            outside.on(f"/{name}", Answered(feed))
        by_loop = reference.load_api(bench.database(), outside.url + "/p")
        with bench.service() as service:
            request = {"url": outside.url + "/p"}
            paged = {"name": "paged", "type": "api", "request": request, "paginate": {"style": "page"}}
            declare(
                service,
                csv_source(path),
                {**paged, "map": data.MAPPING},
                *({"name": name, "type": "rss", "request": {"url": f"{outside.url}/{name}"}} for name in feeds),
            )
            by_pages, _ = timed_run(service, "paged")
            settle(service.database_url)
            by_file, _ = timed_run(service, "products")
            settle(service.database_url)
            by_feed = {name: _feed_seconds(service, name, sizes.entries) for name in feeds}
    file_rate = csv_size / by_file / 1e6
    page_rate = sum(map(len, pages)) / by_pages / 1e6
    feed_rates = {name: len(feed) / by_feed[name] / 1e6 for name, feed in feeds.items()}
    return [
        Outcome(
            "json pages : a plain loop", count / by_pages, count / by_loop, "records/s", by_loop / by_pages, ">= 3.0"
        ),
        Outcome("json pages : csv", page_rate, file_rate, "MB/s", page_rate / file_rate, ">= 0.6"),
        *(
            Outcome(f"feed of {name} : csv", rate, file_rate, "MB/s", rate / file_rate, ">= 0.6")
            for name, rate in feed_rates.items()
        ),
    ]


def _feed_seconds(service: Service, name: str, entries: int) -> float:
    seconds, run = timed_run(service, name)
    assert run["records_inserted"] == entries, run
    return seconds


def memory(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """The largest worker process, for a file and for one many times its size."""
    peaks = []
    for count in (sizes.rows // 5, sizes.large):
        path = bench.folder / "large.csv"
        data.write_csv(path, data.products(count))
        peaks.append(_loaded(bench, path, 2)[1])
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
        seconds, _ = _loaded(bench, path, 2)
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
