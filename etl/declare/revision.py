"""What declaring a source again changes about it, decided from what was declared before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from etl.declare.source import dump, identity_of, mapping_of
from etl.errors import ConfigError

if TYPE_CHECKING:
    from etl.declare.catalog import Scheduled
    from etl.declare.source import AnySource


@dataclass(frozen=True)
class Declared:
    """A source as it was declared before: its document, with the schedule, and whether it runs by itself."""

    document: dict[str, Any]
    enabled: bool


@dataclass(frozen=True)
class Revision:
    """A source as it is to be from now on.

    `keeps_slot` says that its next slot stays; `is_remapped` that its records become items in another way; `identity`
    is the key by which its records would become other items, None where they stay the same.
    """

    document: dict[str, Any]
    keeps_slot: bool = False
    is_remapped: bool = False
    identity: str | None = None


def revise(item: Scheduled, before: Declared | None) -> Revision | None:
    """What is new about a source, None if it is declared as it was."""
    document = {**dump(item.source), "schedule": msgspec.to_builtins(item.schedule)}
    if before is None:
        return Revision(document)
    if before == Declared(document, item.source.enabled):
        return None
    return Revision(
        document,
        keeps_slot=before.enabled and before.document.get("schedule") == document["schedule"],
        is_remapped=mapping_of(before.document) != mapping_of(document),
        identity=None if item.source.identity_change else _other_identity(before.document, document),
    )


def _other_identity(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    old = identity_of(before)
    return next((key for key, value in identity_of(after).items() if old[key] != value), None)


def refuse(source: AnySource, identity: str) -> ConfigError:
    """Why a source that has items may not be declared so."""
    return ConfigError(
        f"source {source.name!r}: `{identity}` would change what identifies its records, and every item would be "
        "stored a second time; if that is meant, set `identity_change: true`",
        code="identity_change",
    )
