"""The domain: what a source is, how its records are fetched, mapped and judged.

Nothing here knows Celery, Flask or SQLAlchemy. Start with `source` (what can be declared), `extract` (how it is
fetched), `mapping` (how a record becomes an item) and `outcome` (how a run ends).
"""
