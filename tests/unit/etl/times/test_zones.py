"""Names of zones."""

import re
from pathlib import Path

from etl.times.zones import ABBREVIATIONS

DOCS = (Path(__file__).parents[4] / "docs" / "sources.md").read_text(encoding="utf-8")


def test_the_documented_abbreviations_are_those_that_are_read() -> None:
    listed = DOCS.partition("an abbreviation: ")[2].partition(". Others")[0]
    assert set(re.findall(r"\b[A-Z]{2,5}\b", listed)) - {"RFC"} == set(ABBREVIATIONS) - {"Z"}
