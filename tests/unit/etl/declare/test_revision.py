"""What declaring a source again changes about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from etl.declare.catalog import Scheduled
from etl.declare.revision import Declared, Revision, revise
from etl.declare.source import Schedule, parse


def declared(every: str = "30m", **keys: Any) -> Scheduled:
    document = {"name": "a", "type": "csv", "file": "x.csv", **keys}
    return Scheduled(parse(document), Schedule(every=every))


def before(item: Scheduled) -> Declared:
    first = revise(item, None)
    assert first
    return Declared(first.document, item.source.enabled)


def test_a_new_source_keeps_no_slot_and_has_no_records_that_could_become_others() -> None:
    revision = revise(declared(), None)
    assert revision
    assert (revision.keeps_slot, revision.is_remapped, revision.identity) == (False, False, None)
    assert (revision.document["name"], revision.document["schedule"]["every"]) == ("a", "30m")


def test_what_is_declared_as_it_was_is_no_revision() -> None:
    assert revise(declared(), before(declared())) is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {"every": "1h"}, {"keeps_slot": False}),
        ({}, {"timeout": "9s"}, {"keeps_slot": True}),
        ({}, {"enabled": False}, {"keeps_slot": True}),
        ({"enabled": False}, {}, {"keeps_slot": False}),
        ({}, {"map": {"title": "t"}}, {"keeps_slot": True, "is_remapped": True}),
        ({}, {"dates": ["%d.%m.%Y"]}, {"keeps_slot": True, "is_remapped": True}),
        ({}, {"identity": ["n"]}, {"keeps_slot": True, "is_remapped": True, "identity": "identity"}),
        ({}, {"identity": ["n"], "identity_change": True}, {"keeps_slot": True, "is_remapped": True}),
    ],
)
def test_what_a_revision_changes(old: dict[str, Any], new: dict[str, Any], expected: dict[str, Any]) -> None:
    revision = revise(declared(**new), before(declared(**old)))
    assert revision
    assert replace(revision, document={}) == Revision({}, **expected)


FEED: dict[str, Any] = {"type": "rss", "request": {"url": "https://x/feed"}}


def feed(**keys: Any) -> Scheduled:
    return Scheduled(parse({"name": "a", **FEED, **keys}), Schedule(every="30m"))


def test_a_feed_keeps_the_form_of_its_ids() -> None:
    old = replace(before(feed()), id_form="resolved")
    assert revise(feed(), old) is None
    changed = revise(feed(timeout="9s"), old)
    assert changed
    assert (changed.id_form, changed.identity, changed.is_remapped) == ("resolved", None, False)
    first = revise(feed(), None)
    assert first
    assert first.id_form == "plain"


def test_another_form_of_ids_is_an_identity_change() -> None:
    old = replace(before(feed()), id_form="resolved")
    refused = revise(feed(id_form="plain"), old)
    meant = revise(feed(id_form="plain", identity_change=True), old)
    assert refused
    assert meant
    assert (refused.identity, meant.identity) == ("id_form", None)
    assert (meant.id_form, meant.is_remapped) == ("plain", True)
