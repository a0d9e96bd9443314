"""What the documents say of commands, files, settings, log events and error codes is so."""

from __future__ import annotations

import re

import pytest

from config import settings
from config.settings import PROJECT

DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(PROJECT.glob("docs/**/*.md"))]
TEXTS = {str(path.relative_to(PROJECT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
# The glossary has the names of before, the decisions what was true when they were taken.
PRESENT = {name: text for name, text in TEXTS.items() if not name.endswith("glossary.md")}
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for package in ("broker", "config", "db", "etl", "stack", "web", "worker")
    for path in (PROJECT / package).rglob("*.py")
)
TARGETS = set(re.findall(r"[a-z-]+(?=[a-z -]*:)", (PROJECT / "Makefile").read_text(encoding="utf-8")))
# Made when the service runs.
MADE = {".local/sources.env", ".local/admin-key", ".local/flower-login", "STATE_DIR/downloads"}
RATE = re.compile(r"\d+/[smhd]")


@pytest.mark.parametrize("name", TEXTS)
def test_commands_that_are_named_exist(name: str) -> None:
    assert set(re.findall(r"`make (?:-s )?([a-z-]+)", TEXTS[name])) <= TARGETS


@pytest.mark.parametrize("name", PRESENT)
def test_files_that_are_named_exist(name: str) -> None:
    paths = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", PRESENT[name])) - MADE
    # Short forms stand below the folder that a line is about.
    places = [PROJECT, *(PROJECT / folder for folder in ("alembic", "bench", "db", "etl", "web"))]
    missing = [path for path in paths if not RATE.fullmatch(path) and not any((at / path).exists() for at in places)]
    assert missing == []


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", TEXTS[name])
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (PROJECT / name).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("name", PRESENT)
def test_settings_that_are_named_are_read(name: str) -> None:
    words = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", PRESENT[name]))
    assert [word for word in words if word.removesuffix("_FILE") not in CODE and word not in OUTSIDE] == []


# Compose's own setting, a variable of CGI, and one of make.
OUTSIDE = {"PUBLISH_HOST", "SCRIPT_NAME", "DRY_RUN"}


def test_the_defaults_that_are_given_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the table of the README and in the example of `.env`."""
    example = re.findall(r"^#([A-Z_]+)=(.+)$", (PROJECT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    own = {"WORKER_PROCESSES", "ALLOWED_PRIVATE_HOSTS", "DATABASE_URL", "WEB_DATABASE_URL", "REDIS_URL", "PUBLISH_HOST"}
    given = {name: value for name, value in example if name not in own}
    assert len(given) > 15
    nothing = settings.read({})
    assert settings.read(given) == settings.read({**nothing.environment, **given})
    for name, value in given.items():
        plain, set_ = vars(nothing), vars(settings.read({name: value}))
        assert [key for key in plain if key != "environment" and plain[key] != set_[key]] == [], name
    table = dict(re.findall(r"^\| (`[A-Z_`· ]+`) \| ([^|]+) \|", TEXTS["README.md"], re.MULTILINE))
    for names, values in table.items():
        for name, value in zip(re.findall(r"[A-Z_]+", names), values.split(" · "), strict=False):
            if name in given:
                assert value.strip().replace(" ", "") == given[name].replace(" ", ""), name


def failures() -> list[list[str]]:
    """The rows of the table of failures."""
    table = TEXTS["docs/operations.md"].partition("| What happened |")[2].partition("\n\n")[0]
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in table.splitlines()[2:]]


def test_log_events_that_are_named_are_logged() -> None:
    named = {word for row in failures() for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", row[3])}
    events = set(re.findall(r'log\.[a-z]+\(\s*"(\w+)"', CODE))
    # A code, which stands with `extraction_failed`.
    assert named - events == {"breaker_open"}


def test_codes_that_are_named_exist() -> None:
    """Whatever looks like one is a word of the code, a column or a field."""
    schema = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "alembic/versions").glob("*.py"))
    words = {word for row in failures() for cell in row for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", cell)}
    assert [word for word in words if not re.search(rf"\b{word}\b", CODE + schema)] == []


def test_the_changelog_speaks_of_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"\n## {version[1]}" in (PROJECT / "CHANGELOG.md").read_text()
