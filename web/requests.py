"""How request bodies are read: strict JSON, declared as such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from flask import Request, abort
from flask_smorest import Blueprint
from webargs.flaskparser import FlaskParser

from web import writes
from web.auth import NEEDS
from web.errors import InvalidRequestError
from web.schemas.problem import PROBLEM, ProblemSchema

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.access.roles import Role

T = TypeVar("T")
# No row has an id that its column cannot hold.
MAX_ID = 2**63 - 1


class StrictParser(FlaskParser):
    """Refuses a body that is not declared to be JSON, instead of taking it for an empty one."""

    def load_json(self, req: Request, schema: Any) -> Any:
        """Read the body; an empty one is an empty object."""
        del schema
        if not req.is_json:
            abort(415, "the body must be JSON, with Content-Type: application/json")
        try:
            return msgspec.json.decode(req.get_data(cache=True) or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequestError("body", "", f"not valid JSON: {error}") from error

    def load_querystring(self, req: Request, schema: Any) -> dict[str, str]:
        """Read the parameters, each of which may be given once."""
        # webargs' own takes the first of several, and goes by way of an exception for each that is absent.
        del schema
        for name, values in req.args.lists():
            if len(values) > 1:
                raise InvalidRequestError("query", name, "given more than once")
        return req.args.to_dict()


class Resource(Blueprint):
    """A blueprint whose bodies are read strictly."""

    ARGUMENTS_PARSER = StrictParser()

    def problem(self, status: int, description: str) -> Callable[[T], T]:
        """Document that an operation answers so with a problem document."""
        made: Callable[[T], T] = self.alt_response(
            status, schema=ProblemSchema, content_type=PROBLEM, description=description
        )
        return made

    def write(self, operation_id: str, role: Role, most_bytes: int | None = None) -> Callable[[T], T]:
        """A call that writes, in one transaction: its name, on record too, the role that it needs, and a longer body.

        It stands below what reads the request, and above what makes the answer.
        """

        def decorate(view: Any) -> Any:
            made = writes.in_one_transaction(view, operation_id, most_bytes)
            setattr(made, NEEDS, role)
            parameters = {"parameters": [_REPEATABLE]} if view.__name__ == "post" else {}
            return self.doc(operationId=operation_id, **{"x-role": role.value}, **parameters)(made)

        return decorate

    def needs(self, role: Role) -> Callable[[T], T]:
        """A call that needs more than the right to read."""

        def decorate(view: Any) -> Any:
            setattr(view, NEEDS, role)
            return self.doc(**{"x-role": role.value})(view)

        return decorate


def also(status: int, kind: str, schema: str = "object") -> dict[int, Any]:
    """What documents that an answer may come as another kind of text too."""
    return {status: {"content": {kind: {"schema": {"type": schema}}}}}


_REPEATABLE = {
    "in": "header",
    "name": writes.HEADER,
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": writes.LONGEST_KEY, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "description": "The same key and request within 24 hours get the same answer, and are done once.",
}
