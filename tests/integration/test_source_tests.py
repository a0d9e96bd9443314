"""`python -m worker test`: what it says of sources, right and wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import PROJECT
from worker.__main__ import main

Run = Callable[..., tuple[int, str]]

SHIPPED = sorted((PROJECT / "tests" / "sources").glob("*.yaml"))
SOURCE = 'source: {name: shop, type: api, request: {url: "http://a.example/items"}}\n'
ANSWERS = 'answers: [{url: "http://a.example/items", json: [{id: 1, title: Pot, price: 2, x: {y: 1}}, {title: Pan}]}]\n'


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command: its exit code, and what it said."""

    def command(*files: Path | str) -> tuple[int, str]:
        status = main(["test", *map(str, files)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return command


def test_the_shipped_examples_are_as_they_should_be(run: Run) -> None:
    status, said = run(*SHIPPED)
    assert status == 0, said
    assert "FAILED" not in said
    assert said.count("ok ") == sum(path.read_text().count("\nexpect:") for path in SHIPPED)


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("{items: [{title: Pot, amount: 2.0, metadata: {x: {y: 1}}}]}", None),
        ("{items: [{title: Pot}], rejects: [{field: external_id, rule: required}], requests: 1}", None),
        ("{}", None),
        ("{items: [{title: Lid}]}", "items: 1: title: expected 'Lid', met 'Pot'"),
        ("{items: [{amount: 3}]}", "items: 1: amount: expected 3, met '2'"),
        ("{items: [{metadata: {x: {y: 2}}}]}", "items: 1: metadata: expected {'x': {'y': 2}}"),
        ("{items: [{colour: red}]}", "items: 1: `colour` is no field of an item"),
        ("{items: []}", "items: expected 0, met 1"),
        ("{items: [{}, {}]}", "items: expected 2, met 1"),
        ("{rejects: []}", "rejects: external_id by required was not expected"),
        ("{rejects: [{field: title, rule: type, external_id: '9'}]}", "rejects: expected title by type of 9"),
        ("{requests: 2}", "requests: expected 2, met 1"),
        ("{error: http_500}", "error: expected http_500, met None"),
    ],
)
def test_each_difference_is_told(run: Run, tmp_path: Path, expect: str, said: str | None) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(f"{SOURCE}{ANSWERS}expect: {expect}\n")
    status, output = run(path)
    assert status == (0 if said is None else 1), output
    assert (said or "1 tests, 0 failed") in output


def test_nothing_is_asked_of_the_network(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(f"{SOURCE}expect: {{items: []}}\n")
    status, output = run(path)
    assert status == 1
    assert "met no_answer_given: http://a.example/items: no answer is given to GET http://a.example/items" in output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("source: [", "not YAML"),
        ("expect: {}", "missing key `source`"),
        ("source: nobody\nexpect: {}", "there is no source named 'nobody'"),
        (SOURCE + "expect: {itms: []}", "unknown key `expect.itms`"),
        ("source: {name: shop, type: api}\nexpect: {}", "missing key `request`"),
        (
            "source: {name: a, type: csv, file: a.csv}\nfiles: {../../a.csv: x}\nexpect: {}",
            "lies outside of the folder",
        ),
    ],
)
def test_what_is_no_test_is_told_by_its_key(run: Run, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(content + "\n")
    status, output = run(path)
    assert status != 0
    assert said in output
    assert "Traceback" not in output


def test_a_file_that_is_not_there_is_named(run: Run) -> None:
    status, output = run("nowhere.yaml")
    assert status != 0
    assert "nowhere.yaml: No such file" in output


def test_a_file_without_a_test_is_no_good_test(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text("# nothing yet\n")
    status, output = run(path)
    assert status != 0
    assert "there is no test in" in output
    path.write_text(f"{SOURCE}answers: [{{url: 'http://a.example/items', file: none.json}}]\nexpect: {{}}\n")
    status, output = run(path)
    assert status != 0
    assert "none.json: No such file" in output


def test_a_reject_may_be_that_of_any_record(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    answers = 'answers: [{url: "http://a.example/items", json: [{id: 1, price: x}, {id: 2, price: 2}]}]\n'
    expect = "{rejects: [{field: amount, rule: type}], items: [{external_id: 2}]}"
    path.write_text(f"{SOURCE}{answers}expect: {expect}\n")
    status, output = run(path)
    assert status == 0, output
