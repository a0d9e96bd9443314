"""`python -m worker test`: what it says of sources, right and wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import PROJECT

SHIPPED = sorted((PROJECT / "tests" / "sources").glob("*.yaml"))
SOURCE = 'source: {name: shop, type: api, request: {url: "http://a.example/items"}}\n'
ANSWERS = 'answers: [{url: "http://a.example/items", json: [{id: 1, title: Pot, price: 2, x: {y: 1}}, {title: Pan}]}]\n'


def run(*files: Path | str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "test", *map(str, files)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_shipped_examples_are_as_they_should_be() -> None:
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
def test_each_difference_is_told(tmp_path: Path, expect: str, said: str | None) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(f"{SOURCE}{ANSWERS}expect: {expect}\n")
    status, output = run(path)
    assert status == (0 if said is None else 1), output
    assert (said or "1 tests, 0 failed") in output


def test_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
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
def test_what_is_no_test_is_told_by_its_key(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(content + "\n")
    status, output = run(path)
    assert status != 0
    assert said in output
    assert "Traceback" not in output


def test_a_file_that_is_not_there_is_named() -> None:
    status, output = run("nowhere.yaml")
    assert status != 0
    assert "nowhere.yaml: No such file" in output
