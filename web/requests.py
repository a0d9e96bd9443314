"""How request bodies are read: strict JSON, declared as such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from flask import Request, abort
from flask_smorest import Blueprint
from webargs.flaskparser import FlaskParser

from web.errors import InvalidRequestError
from web.schemas.problem import PROBLEM, ProblemSchema

if TYPE_CHECKING:
    from collections.abc import Callable

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
