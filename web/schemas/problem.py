"""The one error body."""

from marshmallow import Schema, fields

# The media type of every error.
PROBLEM = "application/problem+json"


class ProblemErrorSchema(Schema):
    """One thing that is wrong with a request."""

    location = fields.String(metadata={"description": "body, query or path"})
    field = fields.String()
    message = fields.String()


class ProblemSchema(Schema):
    """RFC 9457, served as application/problem+json."""

    type = fields.String()
    title = fields.String()
    status = fields.Integer()
    detail = fields.String()
    source = fields.String(metadata={"description": "the source it is about"})
    active_run_id = fields.UUID(allow_none=True, metadata={"description": "with `already_active`: the run there is"})
    not_before = fields.AwareDateTime(metadata={"description": "with `set_aside`: until when"})
    errors = fields.List(fields.Nested(ProblemErrorSchema), metadata={"description": "only for status 422"})


class NoQuerySchema(Schema):
    """For calls without query parameters: any is refused."""
