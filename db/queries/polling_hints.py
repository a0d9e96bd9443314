"""What a source's server asked for, written down when it was polled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from db.statement import text

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from etl.runs.polling import PollResult
    from etl.runs.slices import RunClaim

# What is asked of a server by now may not be what the run asked, and then its answer says nothing of it.
_SAME = "name = :name AND config -> 'request' IS NOT DISTINCT FROM CAST(:request AS jsonb)"
_NOTE = text(f"""
    UPDATE sources
    SET not_before = CASE WHEN :fresh > 0
            THEN coalesce(CAST(:asked_at AS timestamptz), clock_timestamp()) + make_interval(secs => :fresh) END,
        not_before_reason = CASE WHEN :fresh > 0 THEN 'fresh' END,
        rest = CAST(:rest AS jsonb), moved_to = :moved_to, moved_count = :moved_count, gone_reason = NULL
    WHERE {_SAME}
""")


def _of(claim: RunClaim) -> dict[str, Any]:
    return {"name": claim.source_name, "request": msgspec.json.encode(claim.config.get("request")).decode()}


def note_poll(connection: Connection, claim: RunClaim, poll: PollResult) -> None:
    """After a poll that succeeded. A source that was thought gone is back."""
    values: dict[str, Any] = {**vars(poll), **_of(claim)}
    values["rest"] = None if poll.quiet is None else msgspec.json.encode(poll.quiet).decode()
    connection.execute(_NOTE, values)


def note_postponed(connection: Connection, claim: RunClaim, seconds: float) -> None:
    """The server asked for a pause that is too long for a run."""
    query = text(f"""
        UPDATE sources SET not_before = clock_timestamp() + make_interval(secs => :seconds), not_before_reason = 'asked'
        WHERE {_SAME}
    """)
    connection.execute(query, {**_of(claim), "seconds": seconds})


def postponed_sources(connection: Connection) -> list[Row[Any]]:
    """The names and addresses of sources whose server has asked for a pause that is not over."""
    query = text("""
        SELECT name, config -> 'request' ->> 'url' AS url FROM sources
        WHERE not_before_reason = 'asked' AND not_before > clock_timestamp()
    """)
    return list(connection.execute(query).all())


def clear_server_wait(connection: Connection, names: list[str]) -> None:
    """Forget what the servers of these sources asked for."""
    query = text("UPDATE sources SET not_before = NULL, not_before_reason = NULL WHERE name = ANY (:names)")
    connection.execute(query, {"names": names})


def note_gone(connection: Connection, claim: RunClaim, reason: str) -> None:
    """The server said that there will be no more: the source is not polled until a run by hand succeeds."""
    query = text(f"UPDATE sources SET gone_reason = :reason WHERE {_SAME}")
    connection.execute(query, {**_of(claim), "reason": reason[:500]})


def note_not_moved(connection: Connection, claim: RunClaim) -> None:
    """The address that the source had moved to does not serve it."""
    query = text(f"UPDATE sources SET moved_to = NULL, moved_count = 0 WHERE {_SAME}")
    connection.execute(query, _of(claim))
