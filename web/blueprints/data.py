"""Items."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import marshmallow as ma
import msgspec
from flask import Response, request
from flask.views import MethodView

from db.queries.changes import Bookmark, Position, read_changes
from db.queries.erasures import ask_to_erase
from db.queries.exports import EXPORTED, Format, Wanted, find_export
from db.queries.item_paths import Filters, Order, is_direct
from db.queries.items import PAGE_BYTES, find_items, find_small_items
from db.queries.lineage import get_item, get_lineage
from db.queries.marks import find_mark, set_mark
from db.queries.sources import check_known
from etl.access.roles import Role
from etl.errors import PageTooLargeError, TooSlowError, UnknownItemError
from web.cursors import ChangeCursor, unpack
from web.exports import KINDS, export
from web.extensions import service
from web.present.changes import present_changes
from web.present.items import present_items
from web.present.lineage import present_lineage
from web.questions import naming_a_source, read_filters, read_question
from web.requests import MAX_ID, Resource
from web.schemas.data import (
    ChangesQuerySchema,
    ChangesSchema,
    DataQuerySchema,
    DataSchema,
    ErasedSchema,
    ErasureRequestSchema,
    ExportQuerySchema,
    ExportSchema,
    ItemSchema,
    LineageSchema,
)
from web.schemas.problem import NoQuerySchema
from web.writes import current

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.queries.items import Page, Total
    from web.questions import Question

blueprint = Resource("data", __name__, description="What was loaded.")
_EXPORTED = {
    200: {
        "description": "The items.",
        "content": {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in KINDS.values()},
    }
}


@blueprint.route("/data")
class Data(MethodView):
    """All items."""

    @blueprint.arguments(DataQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, DataSchema)
    @blueprint.alt_response(304, description="Not changed since the answer whose ETag was sent as If-None-Match.")
    @blueprint.problem(503, "The database is away, or needs too long for this (`too_slow`): narrow it.")
    @blueprint.doc(operationId="list_items")
    def get(self, query: dict[str, Any]) -> Response:
        """List items, by page number or, at any depth, by cursor.

        A page of large items ends early (`has_next`); one asked for by its number is refused instead.
        """
        with naming_a_source():
            body = _answer(read_question(query))
        response = Response(body, mimetype="application/json")
        # Weak, since it is the same whether the answer is packed or not.
        response.set_etag(hashlib.sha256(body).hexdigest()[:32], weak=True)
        return response.make_conditional(request) if request.if_none_match else response  # type: ignore[return-value]


@blueprint.route("/data/changes")
class DataChanges(MethodView):
    """What a mirror reads."""

    @blueprint.arguments(ChangesQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, ChangesSchema)
    @blueprint.problem(410, "`mirror_reset`: the database was restored, or too much was removed since. Begin anew.")
    @blueprint.problem(503, "The database is away, or needs too long for this (`too_slow`).")
    @blueprint.doc(operationId="list_changes")
    def get(self, query: dict[str, Any]) -> Response:
        """List what changed, deleted items too, the oldest change first, each item as it is now. None is missed.

        Apply each to what you have by its `id`, and keep `next_cursor` with it. What changes again comes again.
        """
        after = unpack(query["cursor"], ChangeCursor) if "cursor" in query else None
        database, retention = service().database, service().settings.deleted_retention
        found = database.read(read_changes, _bookmark(after) if after else None, query["limit"])
        mark = database.read(find_mark, found.life, retention) or database.transact(set_mark, found.life, retention)
        return Response(present_changes(found, Bookmark.of(found.position, mark)), mimetype="application/json")


@blueprint.route("/data/export")
class DataExport(MethodView):
    """All that is wanted, at once."""

    @blueprint.arguments(ExportQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.problem(429, "Two exports go on (`too_many_exports`).")
    @blueprint.problem(505, "CSV that is not packed, over HTTP/1.0 (`old_protocol`).")
    @blueprint.problem(501, "Parquet needs pyarrow, which is not installed here.")
    @blueprint.problem(503, "The database is away.")
    @blueprint.doc(operationId="start_export", responses=_EXPORTED)
    def get(self, query: dict[str, Any]) -> Response:
        """Stream items by id, packed if `Accept-Encoding` allows for it; those that change meanwhile come either way.

        ndjson ends with a line `{"items": …, "sha256": …, "complete": true}`; a stream of any form that did not come to
        its end breaks off without the last chunk. `Export-Id` in the header names it for `GET /data/export/{id}`.
        """
        with naming_a_source():
            if "source_name" in query:
                service().database.read(check_known, query["source_name"])
        wanted = Wanted(read_filters(query), query.get("columns") or EXPORTED, Format(query["format"]))
        return export(uuid4(), wanted)


@blueprint.route("/data/export/<uuid:export_id>")
class ExportState(MethodView):
    """One export."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, ExportSchema)
    @blueprint.problem(404, "There is no such export of the last day.")
    @blueprint.doc(operationId="get_export")
    def get(self, export_id: UUID) -> Any:
        """Show how far an export is, how many items it has, and its checksum once it is complete."""
        return service().database.read(find_export, export_id)._asdict()


def _bookmark(cursor: ChangeCursor) -> Bookmark:
    position = msgspec.structs.asdict(cursor)
    mark = position.pop("mark")
    return Bookmark(Position(**position), str(mark))


@blueprint.route("/data/<int:item_id>")
class Item(MethodView):
    """One item."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, ItemSchema)
    @blueprint.problem(404, "There is no such item.")
    @blueprint.doc(operationId="get_item")
    def get(self, item_id: int) -> Response:
        """Show an item, a deleted one too."""
        return Response(service().database.read(get_item, _known(item_id)), mimetype="application/json")


@blueprint.route("/data/<int:item_id>/lineage")
class ItemLineage(MethodView):
    """Where one item comes from."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, LineageSchema)
    @blueprint.problem(404, "There is no such item.")
    @blueprint.doc(operationId="get_lineage")
    def get(self, item_id: int) -> Response:
        """Show the stored record of an item, the runs that fetched and wrote it, and the mapping that made it."""
        found = present_lineage(service().database.read(get_lineage, _known(item_id)))
        return Response(msgspec.json.encode(found), mimetype="application/json")


@blueprint.route("/data/<int:item_id>/erase")
class ItemErasure(MethodView):
    """A record that is to be forgotten."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(ErasureRequestSchema)
    @blueprint.write("erase_item", Role.ADMIN)
    @blueprint.response(202, ErasedSchema)
    @blueprint.problem(404, "There is no such item.")
    def post(self, wanted: dict[str, Any], item_id: int) -> Any:
        """Erase a record wherever it is stored, with a reason. It does not come back when its source gives it again.

        The item stays, empty and `deleted`. Workers do it within seconds; what a run has in hand, after that.
        `erasure` in its lineage says when all is done.
        """
        write = current()
        asked_at = ask_to_erase(write.connection, _known(item_id), wanted["reason"])
        write.target, write.detail = f"item {item_id}", {"asked": wanted}
        return {"item_id": item_id, "asked_at": asked_at}


def _known(item_id: int) -> int:
    if item_id > MAX_ID:
        raise UnknownItemError(f"there is no item {item_id}")
    return item_id


def _answer(question: Question) -> bytes:
    """The answer as JSON."""
    try:
        return _small(question) or _in_turn(question)
    except TooSlowError as error:
        raise TooSlowError(f"{error.message}. To narrow the question: {_narrower(question)}") from error


def _small(question: Question) -> bytes | None:
    """The answer, if it is quick to find and not large."""
    if not is_direct(question.asked):
        return None
    return service().database.read(_read_small, question)


def _in_turn(question: Question) -> bytes:
    """The answer, when it is the turn of one that may be slow to find, or large."""
    with service().slow.enter():
        return service().database.read(_read, question)


def _narrower(question: Question) -> str:
    hints = ["ask for a smaller `page_size`"]
    if question.filters.source_name is None:
        hints.insert(0, "add `source_name`")
    if question.filters != Filters(source_name=question.filters.source_name):
        hints.append("use fewer filters")
    if question.order.sort_by != Order.sort_by:
        hints.append("keep the default order")
    return ", ".join(hints)


def _read_small(connection: Connection, question: Question) -> bytes | None:
    found = find_small_items(connection, question.asked)
    if found is None:
        return None
    return _body(connection, question, found, service().totals.count(connection, question.filters))


def _read(connection: Connection, question: Question) -> bytes:
    found, total = find_items(connection, question.asked, service().totals)
    if found.cut and question.page is not None:
        raise _too_large(len(found.items))
    return _body(connection, question, found, total)


def _too_large(fitting: int) -> PageTooLargeError:
    message = f"a page holds {PAGE_BYTES >> 20} MiB, here {fitting} items; ask for fewer, or follow `next_cursor`"
    return PageTooLargeError(message, errors=[{"location": "query", "field": "page_size", "message": message}])


def _body(connection: Connection, question: Question, found: Page, total: Total) -> bytes:
    """The answer as JSON. The items in it are PostgreSQL's own text: nothing is gained by taking them apart here."""
    name = question.filters.source_name
    if not found.items and name is not None:
        check_known(connection, name)
    return msgspec.json.encode(present_items(question, found, total))
