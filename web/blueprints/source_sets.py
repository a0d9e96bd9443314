"""Many sources at once: a document applied, an action on all that are meant; and a source tried before it is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma
import msgspec
from flask import Response
from flask.views import MethodView

from broker.messaging import publish
from db.queries.run_requests import request_runs
from db.queries.source_list import Chosen, State, chosen_names, pause_sources, resume_sources
from db.queries.sources import get_declared
from etl.access.roles import Role
from etl.declare.source import parse
from etl.errors import ConfigError
from etl.runs.outcome import Trigger
from etl.runs.run_requests import Refusal
from web.blueprints.sources import chosen_by
from web.declaring import JSON, MOST_BYTES, YAML, declare, read_many
from web.errors import InvalidRequestError
from web.extensions import service
from web.present.sources import present_applied
from web.previews import preview
from web.requests import Resource
from web.schemas.previews import PreviewRequestSchema, PreviewSchema
from web.schemas.problem import NoQuerySchema
from web.schemas.sources import AppliedSchema, ApplyQuerySchema, BulkDoneSchema, BulkSchema
from web.writes import current

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

blueprint = Resource("source_sets", __name__, description="Many sources at once, and sources to be tried.")
SHOWN_NAMES = 100
_DOCUMENT = {
    "required": True,
    "content": {kind: {"schema": {"type": "object", "description": "as sources.schema.json"}} for kind in (JSON, YAML)},
}


@blueprint.route("/sources/apply")
class Apply(MethodView):
    """A document of sources."""

    @blueprint.arguments(ApplyQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.write("apply_sources", Role.ADMIN, MOST_BYTES)
    @blueprint.response(200, AppliedSchema)
    @blueprint.problem(409, "A source stands in the file of sources, and is declared otherwise there.")
    @blueprint.doc(requestBody=_DOCUMENT)
    def post(self, query: dict[str, Any]) -> Any:
        """Declare the sources of a document: all of them or, on an error, none.

        It has the form of the sources file, in JSON or YAML, of at most 16 MiB.
        """
        write = current()
        applied = declare(read_many(), prune=query["prune"], dry_run=query["dry_run"])
        shown = present_applied(applied, dry_run=query["dry_run"])
        write.is_recorded = not query["dry_run"]
        write.detail = {**shown, "created": len(applied.created), "created_names": applied.created[:SHOWN_NAMES]}
        return shown


@blueprint.route("/sources/bulk")
class Bulk(MethodView):
    """An action on many sources."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(BulkSchema)
    @blueprint.write("start_bulk", Role.OPERATE)
    @blueprint.response(200, BulkDoneSchema)
    @blueprint.problem(404, "A name is not known; nothing was done.")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Run, retry, pause or resume the sources that are named or that are like the filter.

        `run` leaves out those that may not run now; `retry` runs those whose last run failed.
        """
        write = current()
        given = wanted["filter"] if "filter" in wanted else {"names": wanted["names"]}
        names = chosen_names(write.connection, chosen_by(given))
        meant = _able(write.connection, wanted["action"], names)
        write.is_recorded = not wanted["dry_run"]
        done = 0 if wanted["dry_run"] else _act(wanted, meant)
        counted = len(meant) if wanted["dry_run"] else done
        write.detail = {"asked": wanted, "matched": len(names), "done": done}
        about = {"action": wanted["action"], "dry_run": wanted["dry_run"], "names": names[:SHOWN_NAMES]}
        return {**about, "matched": len(names), "done": counted, "left_out": len(names) - counted}


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


def _able(connection: Connection, action: str, names: Sequence[str]) -> list[str]:
    """Those of the sources that the action is for."""
    if action in {"pause", "resume"}:
        return list(names)
    found = set(chosen_names(connection, Chosen(names, state=State.RUNNABLE)))
    if action == "retry":
        found &= set(chosen_names(connection, Chosen(names, state=State.FAILING)))
    return [name for name in names if name in found]


def _act(wanted: dict[str, Any], names: list[str]) -> int:
    write = current()
    if wanted["action"] == "pause":
        return pause_sources(write.connection, names, wanted.get("until"))
    if wanted["action"] == "resume":
        return resume_sources(write.connection, names)
    requested = request_runs(write.connection, names, Trigger.API)
    if isinstance(requested, Refusal):
        raise requested.error
    write.then(publish, service().producer, requested.messages)
    return len(requested.queued)
