"""Data: what there is, and where each item comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flask import request
from marshmallow import Schema, ValidationError

from db.queries.exports import EXPORTED, Format, Wanted
from db.queries.sources import check_known
from etl.access.roles import Role
from etl.declare.source import SOURCE_TYPES
from etl.errors import ConfigError
from web.exports import export
from web.extensions import service
from web.questions import read_filters
from web.schemas.data import ExportQuerySchema
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import blueprint, done, given, needs, page, refused

if TYPE_CHECKING:
    from flask import Response

FILTERS = (
    "search",
    "source_name",
    "source_type",
    "category",
    "status",
    "published_after",
    "published_before",
    "updated_since",
)
ORDER = ("sort_by", "sort_order")
SORTABLE = ("created_at", "updated_at", "published_at", "title", "amount", "rating")
COLUMNS = ("source_name", "title", "category", "amount", "published_at", "updated_at")


@blueprint.get("/data")
def data() -> Response:
    """Items, a page at a time."""
    query = {**given((*FILTERS, *ORDER, "cursor")), "page_size": 50}
    chosen = tuple(name for name in request.args.getlist("columns") if name in EXPORTED) or COLUMNS
    return page(
        "data.html",
        section="data",
        twin=address("/data", query),
        export=address("/ui/data/export", {**given(FILTERS), "columns": ",".join(chosen)}),
        found=ask("/data", query),
        filters=given(FILTERS),
        columns=chosen,
        every=EXPORTED,
        sortable=SORTABLE,
        types=SOURCE_TYPES,
    )


@blueprint.get("/data/export")
def export_data() -> Response:
    """The same as a stream: where a session counts, the API does not take it."""
    query = ask_query(ExportQuerySchema())
    if "source_name" in query:
        service().database.read(check_known, query["source_name"])
    return export(uuid4(), Wanted(read_filters(query), query.get("columns") or EXPORTED, Format(query["format"])))


def ask_query(schema: Schema) -> dict[str, Any]:
    """The parameters of this page, as the API reads them.

    Raises:
        ConfigError: one of them is wrong.
    """
    try:
        found: dict[str, Any] = schema.load(request.args.to_dict())
    except ValidationError as error:
        raise ConfigError("; ".join(f"{name}: {said}" for name, said in error.messages_dict.items())) from error
    return found


@blueprint.get("/data/<int:item_id>")
def item(item_id: int) -> Response:
    """One item, and where it comes from."""
    found = ask(f"/data/{item_id}/lineage")
    return page("item.html", section="data", twin=f"/data/{item_id}/lineage", found=found, i=found["item"])


@blueprint.post("/data/<int:item_id>/erase")
@needs(Role.ADMIN)
def erase(item_id: int) -> Any:
    """Erases a record everywhere, with a reason."""
    try:
        act("POST", f"/data/{item_id}/erase", {"reason": request.form.get("reason", "")})
    except ApiError as error:
        return refused(error, "item", item_id=item_id)
    return done("the record is being erased", "item", item_id=item_id)
