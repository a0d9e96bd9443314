"""What declaring a source again changes about it, decided from what was declared before."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from etl.declare.credentials import masked
from etl.declare.source import contract_of, dump, identity_of, mapping_of
from etl.errors import ConfigError

if TYPE_CHECKING:
    from etl.declare.catalog import Scheduled
    from etl.declare.source import AnySource


class Origin(StrEnum):
    """Where a source is declared, and so where it is changed."""

    FILE = "file"
    API = "api"


@dataclass(frozen=True)
class Author:
    """Who declares: from where, by which name, and whether what was declared over the API is taken over."""

    origin: Origin
    name: str
    adopts: bool = False


# How sources that are new take the ids of their feeds: as they are.
NEW_FORM: Literal["plain"] = "plain"


@dataclass(frozen=True)
class Declared:
    """A source as it was declared before: its document, with the schedule, and whether it runs by itself.

    `id_form` is how it takes the ids of its feed, declared or not.
    """

    document: dict[str, Any]
    enabled: bool
    id_form: str = NEW_FORM


@dataclass(frozen=True)
class Revision:
    """A source as it is to be from now on.

    `keeps_slot` says that its next slot stays; `is_remapped` that its records become items in another way, `is_judged`
    that others of them fit; `identity`
    is the key by which its records would become other items, None where they stay the same. `id_form` is how it takes
    the ids of its feed.
    """

    document: dict[str, Any]
    keeps_slot: bool = False
    is_remapped: bool = False
    is_judged: bool = False
    identity: str | None = None
    id_form: str = NEW_FORM


def revise(item: Scheduled, before: Declared | None) -> Revision | None:
    """What is new about a source, None if it is declared as it was."""
    document = {**dump(item.source), "schedule": msgspec.to_builtins(item.schedule)}
    # A source keeps the form that it began with, unless it says otherwise.
    id_form = document.get("id_form") or (before.id_form if before else NEW_FORM)
    if before is None:
        return Revision(document, id_form=id_form)
    if before == Declared(document, item.source.enabled, id_form):
        return None
    return Revision(
        document,
        keeps_slot=before.enabled and before.document.get("schedule") == document["schedule"],
        is_remapped=mapping_of(before.document) != mapping_of(document),
        is_judged=contract_of(before.document) != contract_of(document),
        identity=None if item.source.identity_change else _other_identity(before, document, id_form),
        id_form=id_form,
    )


def _other_identity(before: Declared, after: dict[str, Any], id_form: str) -> str | None:
    old = {**identity_of(before.document), "id_form": before.id_form}
    new = {**identity_of(after), "id_form": id_form}
    return next((key for key, value in new.items() if old[key] != value), None)


def refuse(source: AnySource, identity: str) -> ConfigError:
    """Why a source that has items may not be declared so."""
    return ConfigError(
        f"source {source.name!r}: `{identity}` would change what identifies its records, and every item would be "
        "stored a second time; if that is meant, set `identity_change: true`",
        code="identity_change",
    )


@dataclass(frozen=True)
class Difference:
    """A key of which two documents say different things; None where it is not given."""

    key: str
    before: Any
    after: Any


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[Difference]:
    """What one document says of its mapping otherwise than the other; each field is a key of its own."""
    old, new = _by_key(before), _by_key(after)
    keys = dict.fromkeys((*old, *new))
    return [Difference(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def all_differences(before: dict[str, Any], after: dict[str, Any]) -> list[Difference]:
    """All that one document says otherwise than the other, without credentials; parts of objects by themselves."""
    old, new = _in_parts(masked(before)), _in_parts(masked(after))
    return [Difference(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def _in_parts(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _by_key(document: dict[str, Any]) -> dict[str, Any]:
    said = mapping_of(document) | contract_of(document)
    parts = {f"{key}.{name}": value for key in _IN_PARTS for name, value in (said.pop(key) or {}).items()}
    return said | parts


_IN_PARTS = ("map", "expect")
