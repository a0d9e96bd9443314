"""Sources: what is pulled, and how it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response, request
from flask.views import MethodView

from broker.host_states import host_of_source
from db.queries.declaring import lock_declaring
from db.queries.overview import count_sources
from db.queries.source_list import (
    Chosen,
    State,
    details_of,
    get_source,
    list_declared,
    list_fields,
    list_sources,
    list_versions,
    pause_sources,
    resume_sources,
)
from db.queries.source_removal import delete_source
from db.queries.sources import check_known
from db.queries.versions import list_mappings
from db.queries.why import situation
from etl.access.roles import Role
from etl.declare.credentials import masked
from etl.declare.revision import Origin
from etl.errors import SourceOwnedError, StaleVersionError, UnknownSourceError
from etl.runs.why import explain, is_on_time
from web.declaring import YAML, check_version, declare, merged, read_one, warnings_of
from web.extensions import service
from web.present.sources import (
    as_yaml,
    present_fields,
    present_mappings,
    present_source,
    present_sources,
    present_versions,
)
from web.requests import Resource, also
from web.schemas.problem import NoQuerySchema
from web.schemas.sources import (
    DeletedSchema,
    DeletionQuerySchema,
    DocumentSchema,
    DriftSchema,
    MappingsQuerySchema,
    MappingsSchema,
    PauseSchema,
    SourceSchema,
    SourcesQuerySchema,
    SourcesSchema,
    VersionsQuerySchema,
    VersionsSchema,
    WhySchema,
)
from web.writes import current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

    from db.session import Database

blueprint = Resource("sources", __name__, description="What is pulled, and how it is read.")
# So many are in memory at a time while all are written out.
EXPORTED_AT_ONCE = 200
IF_MATCH = {
    "in": "header",
    "name": "If-Match",
    "required": False,
    "schema": {"type": "string"},
    "description": "the `ETag` of the version that is changed; needed for a source that there is",
}


@blueprint.route("/sources")
class Sources(MethodView):
    """All sources."""

    @blueprint.arguments(SourcesQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, SourcesSchema)
    @blueprint.doc(operationId="list_sources", responses=also(200, YAML))
    def get(self, query: dict[str, Any]) -> Any:
        """List sources by name, with how they are; or, with `format=yaml`, write out their documents."""
        chosen = chosen_by(query)
        if query["format"] == "yaml":
            return Response(_exported(service().database, chosen), mimetype=YAML)
        limit: int = query["limit"]
        return service().database.read(_read_page, chosen, query["cursor"], limit, details=query["details"])


@blueprint.route("/sources/<source_name>")
class Source(MethodView):
    """One source."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, SourceSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.doc(operationId="get_source")
    def get(self, source_name: str) -> Any:
        """Show a source with its document; `ETag` is its version."""
        return service().database.read(_read_source, source_name)

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(DocumentSchema)
    @blueprint.write("put_source", Role.ADMIN)
    @blueprint.response(200, SourceSchema)
    @blueprint.alt_response(201, schema=SourceSchema, description="It is new.")
    @blueprint.problem(409, "It stands in the file of sources, or items of an earlier one are still being deleted.")
    @blueprint.problem(412, "There is another version of it now.")
    @blueprint.problem(428, "There is one: `If-Match` has to say which version is replaced.")
    @blueprint.doc(parameters=[IF_MATCH])
    def put(self, document: dict[str, Any], source_name: str) -> Any:
        """Declare a source, or replace it as a whole.

        Its schedule holds within seconds; a run that goes on keeps to the version it began with.
        """
        before = _find(current().connection, source_name)
        if before is None:
            if request.headers.get("If-Match"):
                raise StaleVersionError(f"there is no source named {source_name!r}")
            made, headers = _declared(source_name, document, None)
            return made, 201, headers
        _check_changeable(before)
        return _declared(source_name, document, before)

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(DocumentSchema)
    @blueprint.write("patch_source", Role.ADMIN)
    @blueprint.response(200, SourceSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.problem(409, "It stands in the file of sources.")
    @blueprint.problem(412, "There is another version of it now.")
    @blueprint.problem(428, "`If-Match` has to say which version is changed.")
    @blueprint.doc(parameters=[IF_MATCH])
    def patch(self, patch: dict[str, Any], source_name: str) -> Any:
        """Change a part of a source: what is given replaces what there is, null takes a key away (RFC 7396)."""
        before = _declared_now(current().connection, source_name)
        _check_changeable(before)
        return _declared(source_name, merged(before.config, patch), before)

    @blueprint.arguments(DeletionQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.write("delete_source", Role.ADMIN)
    @blueprint.response(200, DeletedSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.problem(409, "It stands in the file of sources.")
    @blueprint.problem(412, "There is another version of it now.")
    @blueprint.problem(428, "`If-Match` has to say which version is deleted.")
    @blueprint.doc(parameters=[IF_MATCH])
    def delete(self, query: dict[str, Any], source_name: str) -> Any:
        """Delete a source. Its runs are cancelled; its items stay, unless `data` asks for them to be deleted too."""
        write = current()
        before = _declared_now(write.connection, source_name)
        _check_changeable(before)
        cancelled = delete_source(write.connection, source_name, with_items=query["data"])
        write.detail = {"before": masked(before.config), "data": query["data"]}
        return {"name": source_name, "cancelled_runs": cancelled, "items_deleted": query["data"]}


@blueprint.route("/sources/<source_name>/pause")
class Pause(MethodView):
    """A source that is not to run for a while."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(PauseSchema)
    @blueprint.write("pause_source", Role.OPERATE)
    @blueprint.response(200, SourceSchema)
    @blueprint.problem(404, "There is no such source.")
    def post(self, wanted: dict[str, Any], source_name: str) -> Any:
        """Pause a source, until a time or until it is resumed. A run that goes on is not ended."""
        write = current()
        before = get_source(write.connection, source_name)
        pause_sources(write.connection, [source_name], wanted.get("until"))
        write.detail = {"before": {"paused": before.paused}, "after": {"paused": True, "until": wanted.get("until")}}
        return _read_source(write.connection, source_name)


@blueprint.route("/sources/<source_name>/resume")
class Resume(MethodView):
    """A source that may run again."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.write("resume_source", Role.OPERATE)
    @blueprint.response(200, SourceSchema)
    @blueprint.problem(404, "There is no such source.")
    def post(self, source_name: str) -> Any:
        """End the pause of a source, or the time for which it is set aside."""
        write = current()
        before = get_source(write.connection, source_name)
        resume_sources(write.connection, [source_name])
        write.detail = {"before": {"paused": before.paused, "set_aside": before.set_aside}}
        return _read_source(write.connection, source_name)


@blueprint.route("/sources/<source_name>/versions")
class Versions(MethodView):
    """What a source was declared as."""

    @blueprint.arguments(VersionsQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, VersionsSchema)
    @blueprint.problem(404, "There never was such a source.")
    @blueprint.doc(operationId="list_versions")
    def get(self, query: dict[str, Any], source_name: str) -> Any:
        """List the versions of a source, newest first: who declared it, when, and what that changed."""
        limit: int = query["limit"]
        rows = service().database.read(list_versions, source_name, query.get("cursor"), limit + 1)
        if not rows:
            service().database.read(check_known, source_name)
        return present_versions(source_name, rows, limit)


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
        return service().database.read(_mappings, source_name, limit)


@blueprint.route("/sources/<source_name>/drift")
class Drift(MethodView):
    """What the records of a source look like."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, DriftSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.doc(operationId="get_drift")
    def get(self, source_name: str) -> Any:
        """Show which fields the records and items of a source have: since when, of what kinds, what changed."""
        rows = service().database.read(list_fields, source_name)
        if not rows:
            service().database.read(check_known, source_name)
        return present_fields(source_name, rows)


@blueprint.route("/sources/<source_name>/why")
class Why(MethodView):
    """Why a source is late."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, WhySchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.doc(operationId="get_why")
    def get(self, source_name: str) -> Any:
        """Say why a source is late or not well, the cause first, each with since, until and what to do."""
        parts = service()
        about = parts.database.read(situation, source_name, is_scheduling=parts.settings.enable_scheduler)
        host = host_of_source(parts.hosts, about.url, parts.settings.environment)
        reasons = explain(replace(about, host=host))
        return {"source_name": source_name, "on_time": is_on_time(reasons), "reasons": reasons}


def chosen_by(given: dict[str, Any]) -> Chosen:
    """The sources that a request means."""
    state = State(given["state"]) if "state" in given else None
    return Chosen(
        **{key: given[key] for key in ("names", "type", "origin", "tags", "name") if key in given}, state=state
    )


def _read_page(connection: Connection, chosen: Chosen, after: str, limit: int, *, details: bool) -> dict[str, Any]:
    rows = list_sources(connection, chosen, after, limit + 1)
    if not details:
        return present_sources(rows, limit)
    found = details_of(connection, [row.name for row in rows[:limit]])
    return present_sources(rows, limit, found, count_sources(connection))


def _exported(database: Database, chosen: Chosen) -> Iterator[str]:
    after = ""
    yield "sources:\n"
    while rows := database.read(list_declared, chosen, after, EXPORTED_AT_ONCE):
        yield as_yaml(rows)
        after = rows[-1].name
    if not after:
        yield "  []\n"


def _declared_now(connection: Connection, source_name: str) -> Row[Any]:
    """A source that nobody else declares until the transaction ends."""
    lock_declaring(connection)
    return get_source(connection, source_name)


def _find(connection: Connection, source_name: str) -> Row[Any] | None:
    try:
        return _declared_now(connection, source_name)
    except UnknownSourceError:
        return None


def _check_changeable(row: Row[Any]) -> None:
    if row.origin == Origin.FILE:
        raise SourceOwnedError(
            f"the source {row.name!r} stands in the file of sources: change it there", source=row.name
        )
    check_version(row.version)


def _declared(source_name: str, document: dict[str, Any], before: Row[Any] | None) -> tuple[Any, dict[str, str]]:
    write = current()
    applied = declare([read_one(source_name, document)])
    after = get_source(write.connection, source_name)
    write.detail = {
        "before": None if before is None else masked(before.config),
        "after": masked(after.config),
        "differences": applied.differences.get(source_name, []),
        "version": after.version,
    }
    return _shown(write.connection, after)


def _read_source(connection: Connection, source_name: str) -> tuple[dict[str, Any], dict[str, str]]:
    return _shown(connection, get_source(connection, source_name))


def _shown(connection: Connection, row: Row[Any]) -> tuple[dict[str, Any], dict[str, str]]:
    details = details_of(connection, [row.name])[row.name]
    return present_source(row, warnings_of(row.config), details), {"ETag": f'"{row.version}"'}


def _mappings(connection: Connection, source_name: str, limit: int) -> dict[str, Any]:
    check_known(connection, source_name)
    return present_mappings(source_name, list_mappings(connection, source_name, limit + 1), limit)
