"""The tables. Queries are written in SQL beside them; these definitions are what migrations are checked against."""

from db.models import access, alerts, items, mirror, plans, quality, runs, service, sources
from db.models.base import Base

__all__ = ["Base", "access", "alerts", "items", "mirror", "plans", "quality", "runs", "service", "sources"]
