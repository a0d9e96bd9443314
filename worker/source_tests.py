"""`python -m worker test FILES`: tests of sources, without a network, a database and a broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from etl.declare.catalog import load_catalog
from etl.declare.complaints import explain
from etl.declare.source import dump
from etl.errors import ConfigError
from etl.trial.cases import Case, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from config.settings import Settings


def run(settings: Settings, files: Sequence[str]) -> bool:
    """Run the tests in these files, and say how each ended; whether all are as they should be.

    Raises:
        ConfigError: a file is not readable, or no test.
    """
    declared = _Declared(settings)
    tried, failed = 0, 0
    for file in files:
        path = Path(file)
        for case in _cases(path):
            met = _failures(case, path.parent, declared.document)
            tried, failed = tried + 1, failed + bool(met)
            print(f"{'FAILED' if met else 'ok':<8}{file}: {case.name or _name(case)}")
            for line in met:
                print(f"        {line}")
    if not tried:
        raise ConfigError(f"there is no test in {', '.join(files)}")
    print(f"{tried} tests, {failed} failed")
    return not failed


def _failures(case: Case, folder: Path, declared: Callable[[str], dict[str, Any]]) -> list[str]:
    """What of a test is not as it is expected; one that is not valid keeps none of the others from being run."""
    try:
        return failures(case, folder, declared)
    except ConfigError as error:
        return [error.message]


def _cases(path: Path) -> Iterator[Case]:
    """The tests of a file: one in each YAML document."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    for number, document in enumerate((one for one in documents if one is not None), 1):
        try:
            yield msgspec.convert(document, Case, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}: test {number}: {explain(error)}") from error


class _Declared:
    """The sources of the file of sources, which is read once one is asked for. Secrets are not looked at."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._documents: dict[str, dict[str, Any]] | None = None

    def document(self, name: str) -> dict[str, Any]:
        """The document of a source.

        Raises:
            ConfigError: there is none of this name.
        """
        if self._documents is None:
            found = load_catalog(self._settings.sources_file, "30m", lambda secret: secret)
            self._documents = {one.source.name: dump(one.source) for one in found}
        if name not in self._documents:
            raise ConfigError(f"there is no source named {name!r} in {self._settings.sources_file.name}")
        return self._documents[name]


def _name(case: Case) -> str:
    return case.source if isinstance(case.source, str) else str(case.source.get("name"))
