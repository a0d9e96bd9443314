"""Sources: how their records have been mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask.views import MethodView

from db.queries.sources import check_known
from db.queries.versions import list_mappings
from web.extensions import service
from web.present.sources import present_mappings
from web.requests import Resource
from web.schemas.sources import MappingsQuerySchema, MappingsSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection

blueprint = Resource("sources", __name__, description="What is pulled, and how it is read.")


@blueprint.route("/sources/<source_name>/mappings")
class Mappings(MethodView):
    """The mapping versions of a source."""

    @blueprint.arguments(MappingsQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, MappingsSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.doc(operationId="list_mappings")
    def get(self, query: dict[str, Any], source_name: str) -> Any:
        """List the ways in which the records of a source have become items, and what each changed."""
        limit: int = query["limit"]
        return service().database.read(_read, source_name, limit)


def _read(connection: Connection, source_name: str, limit: int) -> dict[str, Any]:
    check_known(connection, source_name)
    return present_mappings(source_name, list_mappings(connection, source_name, limit + 1), limit)
