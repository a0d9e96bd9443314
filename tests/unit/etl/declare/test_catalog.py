from pathlib import Path

import pytest

from config.settings import PROJECT
from etl.declare.catalog import load_catalog
from etl.declare.source import doubts, parse
from etl.errors import ConfigError
from testkit.factories import api_source

GOOD = "  - {name: a, type: csv, file: a.csv}\n"


def load(tmp_path: Path, text: str, **secrets: str) -> list[object]:
    path = tmp_path / "sources.yaml"
    path.write_text(text)
    return list(load_catalog(path, "30m", secrets.get))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources:\n  - {name: a, type: csv, fil: a.csv}\n", ["'a'", "`fil`"]),
        ("sources:\n  - {name: a, type: xml, file: a.csv}\n", ["'a'", "`type`", "'xml'"]),
        ("sources:\n" + GOOD + GOOD, ["'a'", "duplicate"]),
        (
            "sources:\n  - {name: a, type: rss, request: {url: 'http://x', headers: {k: '${NOPE}'}}}\n",
            ["'a'", "NOPE", "`request.headers.k`"],
        ),
        ("sources:\n  - {name: a, type: rss, request: {ulr: 'http://x'}}\n", ["'a'", "`request.ulr`"]),
        ("sources:\n  - {name: a, type: csv}\n", ["'a'", "`file`"]),
        ("sources:\n  - {name: A B, type: csv, file: x}\n", ["'A B'", "`name`"]),
        ("sources:\n  - {type: csv, file: x}\n", ["number 1", "`name`"]),
        ("sources:\n  - {name: a, name: b, type: csv, file: x}\n", ["line 2", "`name`"]),
        ("sources:\n  - {name: a, type: csv, file: x, schedule: {cron: '61 * * * *'}}\n", ["'a'", "`cron`"]),
        (
            "sources:\n  - {name: a, type: csv, file: x, schedule: {every: 1h, timezone: Mars/X}}\n",
            ["'a'", "`timezone`"],
        ),
        ("sources:\n  - {name: a, type: csv, file: x, map: {titel: b}}\n", ["'a'", "`map.titel`"]),
        ("sources:\n  - {name: a, type: api, request: {url: 'http://x'}, records: 'a..b'}\n", ["'a'", "`records`"]),
        (
            "sources:\n  - {name: a, type: api, request: {url: 'http://x'}, records: 'sort_bye(items, &id)'}\n",
            ["'a'", "`records`", "sort_bye()"],
        ),
        ("sources:\n  - {name: a, type: csv, file: x, schedule: {cron: '0 */5 * * * *'}}\n", ["'a'", "`cron`", "five"]),
        ("sources:\n  - {name: a, type: csv, file: x, dates: [DD.MM.YYYY]}\n", ["'a'", "`dates`", "%d.%m.%Y"]),
        ("sources:\n  - {name: a, type: csv, file: x, dates: ['%H:%M']}\n", ["'a'", "`dates`", "no date"]),
        ("defaults: {scheduel: {every: 1h}}\nsources: []\n", ["defaults", "`scheduel`"]),
        ("sources: 3\n", ["sources"]),
        ("surces: []\n", ["unknown key `surces`"]),
        ("sources:\n  - {name: a, type: csv, file: x, timeout: 1 hour}\n", ["'a'", "`timeout`", "30s"]),
        ("sources:\n  - a\n b\n", ["line"]),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_says_where(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = caught.value.message
    assert "sources.yaml" in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_a_setting_of_the_service_is_no_secret_of_a_source(tmp_path: Path, enabled: str) -> None:
    path = tmp_path / "sources.yaml"
    request = "{url: 'http://x', auth: {kind: bearer, token: '${DATABASE_URL}'}}"
    path.write_text(f"sources:\n  - {{name: a, enabled: {enabled}, type: rss, request: {request}}}\n")
    with pytest.raises(ConfigError, match=r"'a'.*`request\.auth\.token`: DATABASE_URL is a setting of the service"):
        load_catalog(path, "30m", lambda _: "value", lambda name: name == "DATABASE_URL")


def test_secrets_of_disabled_sources_may_be_missing(tmp_path: Path) -> None:
    text = "sources:\n  - {name: a, enabled: false, type: rss, request: {url: 'http://x', headers: {k: '${NOPE}'}}}\n"
    assert len(load(tmp_path, text)) == 1


def test_the_nearest_schedule_wins(tmp_path: Path) -> None:
    text = "defaults: {schedule: {every: 2h}}\nsources:\n  - {name: a, type: csv, file: x}\n"
    text += "  - {name: b, type: csv, file: x, schedule: {every: 5m}}\n"
    assert [item.schedule.every for item in load(tmp_path, text)] == ["2h", "5m"]  # type: ignore[attr-defined]
    assert [item.schedule.every for item in load(tmp_path, "sources:\n" + GOOD)] == ["30m"]  # type: ignore[attr-defined]


def test_the_shipped_file_is_valid() -> None:
    catalog = load_catalog(PROJECT / "sources.yaml", "30m", {"SAMPLES_URL": "http://127.0.0.1:1"}.get)
    assert {item.source.kind for item in catalog if item.source.enabled} == {"api", "csv", "rss"}


@pytest.mark.parametrize(
    ("mapping", "doubted"),
    [
        ({"external_id": "order..id"}, ["`map.external_id`"]),
        ({"external_id": "id", "title": "uper(name)"}, ["`map.title`"]),
        ({"external_id": "id", "title": "to_string(name)", "amount": "order.total"}, []),
        # Keys may be written like this.
        ({"external_id": "dc:title", "title": "Bezeichnung DE", "author": "by-line"}, []),
    ],
)
def test_a_path_that_is_none_is_doubted(mapping: dict[str, str], doubted: list[str]) -> None:
    found = doubts(api_source(map=mapping))
    assert [text.partition(":")[0] for text in found] == doubted


def test_columns_of_a_file_may_look_like_calls() -> None:
    source = parse({"name": "a", "type": "csv", "file": "x", "map": {"amount": "Preis (EUR)", "title": "Nr."}})
    assert doubts(source) == []
