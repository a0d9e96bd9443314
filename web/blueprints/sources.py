"""Sources: how their records have been mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma
import msgspec
from flask import Response
from flask.views import MethodView

from db.queries.sources import check_known, get_declared
from db.queries.versions import list_mappings
from etl.access.roles import Role
from etl.declare.source import parse
from etl.errors import ConfigError
from web.errors import InvalidRequestError
from web.extensions import service
from web.present.sources import present_mappings
from web.previews import preview
from web.requests import Resource
from web.schemas.previews import PreviewRequestSchema, PreviewSchema
from web.schemas.problem import NoQuerySchema
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


@blueprint.route("/sources/preview")
class Preview(MethodView):
    """A source, read a little."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(PreviewRequestSchema)
    @blueprint.response(200, PreviewSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.problem(429, "Two previews go on already.")
    @blueprint.doc(operationId="preview_source")
    @blueprint.needs(Role.ADMIN)
    def post(self, wanted: dict[str, Any]) -> Any:
        """Read the first records of a source, saved or not, and show what would become of them.

        Nothing is written. It is read by a process of its own, within its time and memory, from where runs read; it
        spends the rate of its host, and moves no breaker.
        """
        document = wanted.get("source")
        if document is None:
            document = service().database.read(get_declared, wanted["source_name"])
        try:
            parse(document)
        except ConfigError as error:
            raise InvalidRequestError("body", "source", error.message) from error
        return Response(
            msgspec.json.encode(preview(document, wanted["records"], wanted["seconds"])), mimetype="application/json"
        )


def _read(connection: Connection, source_name: str, limit: int) -> dict[str, Any]:
    check_known(connection, source_name)
    return present_mappings(source_name, list_mappings(connection, source_name, limit + 1), limit)
