"""CSV as exporters write it. What is expected was written by hand before it was read, a third of it by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etl.declare.source import parse
from etl.errors import ConfigError, FormatError
from etl.mapping.mapper import Mapper
from etl.records import Page
from testkit.reading import Recorder, read

FOLDER = Path(__file__).parent / "csv_habits"
FILES: list[dict[str, Any]] = json.loads((FOLDER / "expect.json").read_text(encoding="utf-8"))


class Read(NamedTuple):
    """The records of a file, how many rows were rejected, how many are no records, and what was warned of."""

    records: list[dict[str, Any]]
    rejected: int
    skipped: int
    warned: list[str]


def taken(tmp_path: Path, body: bytes, options: dict[str, Any]) -> Read:
    (tmp_path / "x.csv").write_bytes(body)
    document = {"type": "csv", "file": "x.csv", "identity": "content", **options}
    recorder = Recorder()
    pages = read(document, recorder.client(), tmp_path)
    good, bad, skipped = _through(Mapper(parse({"name": "a", **document})), pages)
    return Read(good, bad, sum(page.skipped for page in pages) + skipped, recorder.warnings)


def _through(mapper: Mapper, pages: list[Page]) -> tuple[list[dict[str, Any]], int, int]:
    """The records that are taken, as they came, and how many are rejected and left out."""
    good: list[dict[str, Any]] = []
    rejected = skipped = 0
    for record in (record for page in pages for record in page.records):
        taken, bad, left_out = mapper.take(iter([record]))
        good += [record] if taken and isinstance(record, dict) else []
        rejected, skipped = rejected + len(bad), skipped + left_out
    return good, rejected, skipped


@pytest.mark.parametrize("case", FILES, ids=lambda case: case["file"])
def test_a_file(tmp_path: Path, case: dict[str, Any]) -> None:
    body = (FOLDER / case["file"]).read_bytes()
    if case["kind"] == "refused":
        with pytest.raises((FormatError, ConfigError)):
            taken(tmp_path, body, case["options"])
        return
    found = taken(tmp_path, body, case["options"])
    assert (len(found.records), found.rejected, found.skipped) == (case["rows"], case["rejected"], case["skipped"])
    assert (found.records[0] if found.records else {}) == case["first"]
    assert (found.records[-1] if found.records else {}) == case["last"]


class Habit(NamedTuple):
    """A small file: its text, what is declared, its rows as lists of values, and how many are rejected and skipped."""

    name: str
    text: str
    rows: list[list[str]] | None
    options: dict[str, Any] | None = None
    rejected: int = 0
    skipped: int = 0
    encoding: str = "utf-8"
    warned: tuple[str, ...] = ()


BANK = "Konto;DE02;;\nZeitraum;01.12.2025;31.12.2025;\n\nBuchung;Text;Betrag;Saldo\n01.12.2025;Miete;-900,00;100,00\nEnde;;;100,00\n"
GREEK = "Κωδικός;Περιγραφή\n1;Αθήνα και Θεσσαλονίκη\n2;Πάτρα, Ηράκλειο\n"
RUSSIAN = "Код;Наименование;Цена\n1;Молоко пастеризованное;89,90\n2;Хлеб ржаной;45,00\n3;Сыр твёрдый;799,00\n"
CHINESE = "编号,名称,城市\n1,苹果手机,北京市\n2,笔记本电脑,上海市\n3,数码相机,广州市\n"
JAPANESE = "番号,商品名,都市\n1,りんごジュース,東京都港区\n2,緑茶,大阪市北区\n3,おにぎり,京都市左京区\n"
POLISH = "id;miasto;uwagi\n1;Łódź;zażółć gęślą jaźń\n2;Gdańsk;pójdź, kińże tę chmurność\n3;Wrocław;świętość źdźbła\n"

HABITS = [
    # Delimiters.
    Habit("comma beats nothing", "a,b\n1,2\n", [["1", "2"]]),
    Habit("semicolon with a comma in a name", "Zeit;Preis, EUR\n01.01.2025;12,50\n02.01.2025;13,00\n", [["01.01.2025", "12,50"], ["02.01.2025", "13,00"]]),
    Habit("semicolons and decimal commas", "a;b;c\n1,5;2,5;3,5\n4,5;5,5;6,5\n", [["1,5", "2,5", "3,5"], ["4,5", "5,5", "6,5"]]),
    Habit("commas and texts with semicolons", "id,note\n1,x; y\n2,z; w\n", [["1", "x; y"], ["2", "z; w"]]),
    Habit("tabs with commas in texts", "id\tname\n1\tDoe, Jane\n2\tRoe, Rich\n", [["1", "Doe, Jane"], ["2", "Roe, Rich"]]),
    Habit("bars", "id|at|v\n1|10:00|x\n2|11:00|y\n", [["1", "10:00", "x"], ["2", "11:00", "y"]]),
    Habit("one column", "name\nJane\nRich\n", [["Jane"], ["Rich"]]),
    Habit("one column with commas in quotes", 'name\n"Doe, Jane"\n"Roe, Rich"\n', [["Doe, Jane"], ["Roe, Rich"]]),
    Habit("thousands in quotes", 'id,amount\n1,"1,234.50"\n2,"2,000.00"\n', [["1", "1,234.50"], ["2", "2,000.00"]]),
    Habit("sep line", "sep=;\na;b\n1;2\n", [["1", "2"]]),
    Habit("sep line in quotes", '"sep=|"\na|b\n1|2\n', [["1", "2"]]),
    Habit("times with colons and commas", "t,v\n2025-12-31 10:00:00,1\n2025-12-31 10:01:00,2\n", [["2025-12-31 10:00:00", "1"], ["2025-12-31 10:01:00", "2"]]),
    # Width.
    Habit("a delimiter at each end", "a;b;\n1;2;\n3;4;\n", [["1", "2", ""], ["3", "4", ""]]),
    Habit("a delimiter at the end of the rows alone", "a;b\n1;2;\n3;4;\n", [["1", "2"], ["3", "4"]]),
    Habit("rows without their last fields", "a,b,c\n1,2,3\n4,5\n6,7,8\n", [["1", "2", "3"], ["4", "5", ""], ["6", "7", "8"]], warned=("short_rows",)),
    Habit("the same, declared", "a,b,c\n1,2,3\n4,5\n6,7,8\n", [["1", "2", "3"], ["4", "5", ""], ["6", "7", "8"]], {"csv": {"ragged": "pad"}}),
    Habit("the same, rejected", "a,b,c\n1,2,3\n4,5\n6,7,8\n", [["1", "2", "3"], ["6", "7", "8"]], {"csv": {"ragged": "reject"}}, rejected=1),
    Habit("a row that a line end has broken", "a,b,c\n1,2,3\n4,five\nsix,7\n8,9,10\n", [["1", "2", "3"], ["8", "9", "10"]], rejected=1),
    Habit("a field too many", "a,b\n1,2\n3,4,5\n6,7\n", [["1", "2"], ["6", "7"]], rejected=1),
    Habit("rows of empty fields", "a,b\n1,2\n,\n , \n3,4\n", [["1", "2"], ["3", "4"]], skipped=2),
    Habit("the same as records", "a,b\n1,2\n,\n3,4\n", [["1", "2"], ["", ""], ["3", "4"]], {"csv": {"drop_empty_rows": False}}),
    # Quotes.
    Habit("a quote in the middle", 'id,size\n1,5" pipe\n2,6" pipe\n', [["1", '5" pipe'], ["2", '6" pipe']]),
    Habit("a stray quote costs its row", 'id,t,n\n1,"a "b" c",2\n3,d,4\n', [["3", "d", "4"]], rejected=1),
    Habit("a broken row over two lines", 'id,t,n\n1,"he said "hi" and\nleft",7\n2,ok,8\n3,ok,9\n', [["2", "ok", "8"], ["3", "ok", "9"]], rejected=1),
    Habit("no quotes at all", 'id,t\n1,"x\n2,y"\n', [["1", '"x'], ["2", 'y"']], {"csv": {"quote": None}}),
    Habit("backslashes", 'id,t\n1,"say \\"hi\\""\n2,\\N\n', [["1", 'say "hi"'], ["2", ""]], {"csv": {"escape": "\\"}}),
    Habit("spaces after delimiters", 'id, t\n1, "a, b"\n', [["1", "a, b"]], {"csv": {"skip_space": True}}),
    # Above and below the table.
    Habit("a title", "Umsatz 2025\n\nid;wert\n1;2\n3;4\n", [["1", "2"], ["3", "4"]], warned=("titles_skipped",)),
    Habit("a title as wide as the table", "Umsatz 2025;;\nid;wert;x\n1;2;3\n3;4;5\n", [["1", "2", "3"], ["3", "4", "5"]], warned=("titles_skipped",)),
    Habit("a bank", BANK, [["01.12.2025", "Miete", "-900,00", "100,00"]], {"csv": {"skip_lines": 3, "skip_footer": 1}}),
    Habit("a footer taken out by a condition", "id,v\n1,2\nTotal,2\n", [["1", "2"]], {"where": "id != 'Total'"}, skipped=1),
    Habit("comments", "# made by a logger\nt;v\n1;2\n# restarted\n3;4\n", [["1", "2"], ["3", "4"]], {"csv": {"comment": "#"}}),
    Habit("no header", "1;2\n3;4\n", [["1", "2"], ["3", "4"]], {"csv": {"header": False}}),
    Habit("a header with one name", "id,,\n1,a,b\n2,c,d\n3,e,f\n", [["1", "a", "b"], ["2", "c", "d"], ["3", "e", "f"]]),
    Habit("rows of other spaces", "a,b\n1,2\n\u00a0,\u00a0\n", [["1", "2"], ["\u00a0", "\u00a0"]]),
    Habit("rows of quoted spaces", 'a,b\n1,2\n" "," "\n', [["1", "2"]], skipped=1),
    # Encodings.
    Habit("Greek", GREEK, [["1", "Αθήνα και Θεσσαλονίκη"], ["2", "Πάτρα, Ηράκλειο"]], encoding="cp1253", warned=("encoding_guessed",)),
    Habit("Russian", RUSSIAN, [["1", "Молоко пастеризованное", "89,90"], ["2", "Хлеб ржаной", "45,00"], ["3", "Сыр твёрдый", "799,00"]], encoding="cp1251", warned=("encoding_guessed",)),
    Habit("Russian of old", RUSSIAN, [["1", "Молоко пастеризованное", "89,90"], ["2", "Хлеб ржаной", "45,00"], ["3", "Сыр твёрдый", "799,00"]], encoding="koi8_r", warned=("encoding_guessed",)),
    Habit("Chinese", CHINESE, [["1", "苹果手机", "北京市"], ["2", "笔记本电脑", "上海市"], ["3", "数码相机", "广州市"]], encoding="gbk", warned=("encoding_guessed",)),
    Habit("Japanese", JAPANESE, [["1", "りんごジュース", "東京都港区"], ["2", "緑茶", "大阪市北区"], ["3", "おにぎり", "京都市左京区"]], encoding="shift_jis", warned=("encoding_guessed",)),
    Habit("Japanese of Unix", JAPANESE, [["1", "りんごジュース", "東京都港区"], ["2", "緑茶", "大阪市北区"], ["3", "おにぎり", "京都市左京区"]], encoding="euc_jp", warned=("encoding_guessed",)),
    Habit("Polish", POLISH, [["1", "Łódź", "zażółć gęślą jaźń"], ["2", "Gdańsk", "pójdź, kińże tę chmurność"], ["3", "Wrocław", "świętość źdźbła"]], encoding="cp1250", warned=("encoding_guessed",)),
    Habit("a declared encoding", "id,n\n1,Genève\n", [["1", "Genève"]], {"csv": {"encoding": "mac_roman"}}, encoding="mac_roman"),
    Habit("UTF-16 without a mark", "id;имя\n1;Иван\n2;Пётр\n", [["1", "Иван"], ["2", "Пётр"]], encoding="utf-16-le"),
    Habit("one line that is not UTF-8", "id,n\n1,ok\n2,Z\udcfcrich\n" + "3,ok\n" * 20, [["1", "ok"], ["2", "Zürich"], *([["3", "ok"]] * 20)], warned=("fallback_encoding",)),
    # What is no CSV.
    Habit("HTML", "<!DOCTYPE html>\n<html><body>Please log in, now</body></html>\n", None),
    Habit("JSON", '{"error": "not found", "code": 404}', None),
    Habit("nothing", "\n\n", None),
]  # fmt: skip


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.name)
def test_a_habit(tmp_path: Path, habit: Habit) -> None:
    body = habit.text.encode(habit.encoding, "surrogateescape")
    if habit.rows is None:
        with pytest.raises(FormatError):
            taken(tmp_path, body, habit.options or {})
        return
    found = taken(tmp_path, body, habit.options or {})
    assert [list(record.values()) for record in found.records] == habit.rows
    assert (found.rejected, found.skipped) == (habit.rejected, habit.skipped)
    assert found.warned == list(habit.warned)


def test_there_are_sixty_of_which_fifty_can_be_read() -> None:
    readable = [case for case in FILES if case["kind"] == "read"] + [
        habit for habit in HABITS if habit.rows is not None
    ]
    assert len(FILES) + len(HABITS) >= 60
    assert len(readable) >= 50
