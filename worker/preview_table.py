"""A preview for people at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Characters of a cell, and how many of a kind are listed.
WIDEST = 60
MOST_LISTED = 10


def lines(told: dict[str, Any]) -> Iterator[str]:
    """What a preview has told, in lines."""
    if told.get("error"):
        yield f"error: {told['error']['code']}: {told['error']['message']}"
    if "records" not in told:
        return
    more = ", and there are more" if told["has_more"] else ""
    name = f"{told['source_name']} ({told['source_type']})"
    yield f"{name}: {len(told['records'])} records in {told['pages']} pages{more}"
    for one in told["requests"]:
        status = one["status"] or one["error"]
        yield f"  {one['method']} {one['url']}: {status}, {one['bytes']} bytes, {one['seconds']} s"
    for one in told["warnings"]:
        yield f"  {one['code']}: {one['message']}"
    yield from _found_out(told)
    yield from _fields(told)
    yield from _faults(told)


def _found_out(told: dict[str, Any]) -> Iterator[str]:
    if dialect := told["dialect"]:
        yield f"written as: delimiter {dialect['delimiter']!r}, {dialect['encoding']}, quote {dialect['quote']!r}"
    if told["paging"] and (suggested := told["paging"]["suggested"]):
        yield f"there seem to be more pages: paginate: {_flow(suggested)}"
    if told["suggested_records"]:
        yield f"perhaps: records: {told['suggested_records']}"
    missing = {name: path for name, path in told["suggested_map"].items() if name not in told["mapped_from"]}
    if missing:
        yield f"perhaps: map: {_flow(missing)}"


def _fields(told: dict[str, Any]) -> Iterator[str]:
    """Each field of an item: where it comes from, how often it has a value, and one of them."""
    items = [one for one in told["items"] if one]
    if not items:
        return
    yield f"{'field':<14}{'from':<28}{'filled':>7}  value"
    for name in ("external_id", *told["filled"]):
        value = next((one[name] for one in items if one[name] is not None), None)
        share = told["filled"].get(name, 1.0)
        source = told["mapped_from"].get(name, "")
        yield f"{name:<14}{_cut(source, 26):<28}{share:>7.0%}  {'' if value is None else _cut(value, WIDEST)}"


def _faults(told: dict[str, Any]) -> Iterator[str]:
    ids = told["ids"]
    if ids["without_id"] or ids["repeated"]:
        yield f"ids: {ids['without_id']} records have none, {ids['repeated']} have that of another"
    for one in told["broken_rules"][:MOST_LISTED]:
        yield f"rejected or left out: {one['records']} x {one['message']}"
    for one in told["unstorable"][:MOST_LISTED]:
        yield f"cannot be kept: {one['message']}"
    for one in told["refused"][:MOST_LISTED]:
        yield f"the database refuses record {one['record']}: {one['message']}"


def _flow(mapping: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in mapping.items()) + "}"


def _cut(value: Any, width: int) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"
