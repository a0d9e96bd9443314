"""The hosts of sources: which sources ask them, and how quickly they have answered lately."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.statement import text

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# Of the newest requests.
LOOKED_AT = 5000


def declared_addresses(connection: Connection) -> list[Row[Any]]:
    """The addresses of enabled sources, each with the source."""
    query = text("""
        SELECT name, config -> 'request' ->> 'url' AS url FROM sources
        WHERE enabled AND config ? 'request' ORDER BY name
    """)
    return list(connection.execute(query))


def latencies(connection: Connection) -> dict[str, Row[Any]]:
    """How long the newest requests took, by their host as it stands in the address, in seconds."""
    query = text("""
        SELECT lower(substring(url from '^https?://([^/?#]+)')) AS host, count(*) AS requests,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
            percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95, max(at) AS asked_at
        FROM (SELECT url, seconds, at FROM etl_requests ORDER BY request_id DESC LIMIT :most) newest
        GROUP BY 1
    """)
    return {row.host: row for row in connection.execute(query, {"most": LOOKED_AT}) if row.host}
