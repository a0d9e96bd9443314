"""Sources, and what became of their mappings."""

from __future__ import annotations

from marshmallow import Schema, fields, validate


class DifferenceSchema(Schema):
    """A key of the document that says something else than before."""

    key = fields.String(metadata={"description": "such as `map.amount` or `timezone`"})
    before = fields.Raw(allow_none=True, metadata={"description": "null where it was not given"})
    after = fields.Raw(allow_none=True)


class MappingSchema(Schema):
    """A mapping version: all items that name it were made in the same way."""

    mapping_version = fields.Integer()
    made_at = fields.AwareDateTime()
    made_by = fields.String(metadata={"description": "`file`: the file of sources; `upgrade`: a release"})
    reader = fields.Integer(metadata={"description": "which reading of times, numbers and texts it has"})
    differences = fields.List(
        fields.Nested(DifferenceSchema), metadata={"description": "from the version before; none for the first"}
    )


class MappingsSchema(Schema):
    """The mapping versions of a source, newest first."""

    source_name = fields.String()
    mappings = fields.List(fields.Nested(MappingSchema))


class MappingsQuerySchema(Schema):
    """How many to list."""

    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))
