"""Keys, sessions and exports, from a shell of the machine that runs the service.

python -m web login [--role read|operate|admin]
python -m web sessions list
python -m web sessions revoke ID
python -m web export FILE [--source-name NAME] [--columns id,title] [--format ndjson|csv|parquet] …
python -m web keys create NAME --role read|operate|admin [--expires 90d]
python -m web keys list
python -m web keys revoke ID
python -m web keys rotate ID [--overlap 1h]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from marshmallow import ValidationError

from config import settings
from db.command import exit_code
from db.queries.audit import record_write
from db.queries.exports import EXPORTED, Format, Wanted
from db.queries.keys import create_key, list_keys, revoke_key, rotate_key
from db.queries.sessions import create_link, list_sessions, revoke_session
from db.queries.sources import check_known
from db.session import Database
from etl.access.roles import Role
from etl.declare.duration import duration
from etl.errors import ConfigError
from web.export_file import ExportFile, format_of
from web.questions import read_filters
from web.ranges import AHEAD
from web.schemas.data import ExportQuerySchema, FilterSchema

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from sqlalchemy import Connection, Row

    from etl.access.keys import NewKey

ACTOR = "cli"
LINK_HOLDER = "signed in by link"
MOST_LISTED = 1000


@dataclass(frozen=True)
class Said:
    """What is printed once all is committed; notes go to standard error, so that a script can take a key alone."""

    text: str
    note: str = ""


def create(connection: Connection, given: argparse.Namespace) -> Said:
    """Make a key, and print it: it is not stored, and not shown again."""
    expires_at = datetime.now(UTC) + given.expires if given.expires else None
    row, new = create_key(connection, given.name, Role(given.role), ACTOR, expires_at)
    _record(connection, "create_key", row)
    return _new(row, new)


def rotate(connection: Connection, given: argparse.Namespace) -> Said:
    """Replace a key, and print the new one."""
    row, new = rotate_key(connection, given.id, ACTOR, given.overlap.total_seconds())
    _record(connection, "rotate_key", row, replaces=given.id)
    return _new(row, new)


def revoke(connection: Connection, given: argparse.Namespace) -> Said:
    """Take a key back."""
    row = revoke_key(connection, given.id)
    _record(connection, "revoke_key", row)
    return Said(f"{row.prefix}_… ({row.name}) is refused from now on")


def login(connection: Connection, given: argparse.Namespace) -> Said:
    """Print an address that signs a browser in, once, within 10 minutes."""
    link = create_link(connection, LINK_HOLDER, Role(given.role))
    record_write(connection, ACTOR, "create_link", None, {"role": given.role})
    current = settings.load()
    path = f"/ui/sign-in?{urlencode({'link': link})}"
    return Said(f"http://{_address(current.web_host)}:{current.web_port}{path}")


def _address(host: str) -> str:
    return "127.0.0.1" if host in {"0.0.0.0", "::", "localhost"} else f"[{host}]" if ":" in host else host  # noqa: S104


def show_sessions(connection: Connection, _: argparse.Namespace) -> Said:
    """List sessions that go on, and links that nobody used yet."""
    line = "{:>4}  {:<8}  {:<30}  {:<17}  {}"
    lines = [line.format("id", "role", "of", "since", "until")]
    for row in list_sessions(connection, MOST_LISTED):
        name = f"{row.name}, not used yet" if row.is_link else row.name
        since, until = (f"{at.astimezone(UTC):%Y-%m-%d %H:%MZ}" for at in (row.created_at, row.expires_at))
        lines.append(line.format(row.session_id, row.role, name, since, until))
    return Said("\n".join(lines))


def end(connection: Connection, given: argparse.Namespace) -> Said:
    """End a session."""
    row = revoke_session(connection, given.id)
    record_write(connection, ACTOR, "revoke_session", f"session {row.session_id}", {"after": row._asdict()})
    return Said(f"session {row.session_id} ({row.name}) is over")


def show(connection: Connection, _: argparse.Namespace) -> Said:
    """List keys, those that were taken back too."""
    line = "{:>4}  {:<14}  {:<8}  {:<24}  {:<17}  {}"
    lines = [line.format("id", "begins", "role", "name", "last used", "state")]
    for row in list_keys(connection, limit=MOST_LISTED):
        used = f"{row.last_used_at:%Y-%m-%d %H:%MZ}" if row.last_used_at else "never"
        lines.append(line.format(row.key_id, row.prefix, row.role, row.name, used, _state(row)))
    return Said("\n".join(lines))


def _state(row: Row[Any]) -> str:
    if row.revoked_at:
        return f"revoked {row.revoked_at:%Y-%m-%d}"
    if row.expires_at is None:
        return "good"
    is_over = row.expires_at <= datetime.now(UTC)
    return f"{'expired' if is_over else 'good until'} {row.expires_at:%Y-%m-%d %H:%MZ}"


def _record(connection: Connection, action: str, row: Row[Any], **more: Any) -> None:
    record_write(connection, ACTOR, action, f"key {row.key_id}", {"after": row._asdict(), **more})


def _new(row: Row[Any], new: NewKey) -> Said:
    return Said(new.text, f"key {row.key_id} ({row.name}, {row.role}); it is shown this once:")


_FILTERS = tuple(name for name in FilterSchema().fields)


def export(given: argparse.Namespace) -> None:
    """Write items into a file, by its name as ndjson, csv or parquet, and packed; if it was ended, go on with it."""
    path = Path(given.file)
    asked = {
        name: getattr(given, name) for name in ("format", "columns", *_FILTERS) if getattr(given, name) is not None
    }
    asked.setdefault("format", format_of(path) or Format.NDJSON)
    try:
        query = ExportQuerySchema().load(asked)
    except ValidationError as error:
        wrong = "; ".join(f"--{name.replace('_', '-')}: {said}" for name, said in error.messages_dict.items())
        raise ConfigError(wrong) from error
    database = Database(settings.load_connected().web_database_url, name="kasparro-export", pool_size=1 + AHEAD)
    wanted = Wanted(read_filters(query), tuple(query.get("columns") or EXPORTED), Format(query["format"]))
    try:
        if wanted.filters.source_name is not None:
            database.read(check_known, wanted.filters.source_name)
        done = ExportFile(path, database, wanted, _tell_items).write()
    finally:
        database.close()
    print(f"\r{done.items} items", file=sys.stderr)
    print(done.sha256)


def _tell_items(items: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{items} items", end="", file=sys.stderr, flush=True)


def _duration(text: str) -> timedelta:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a duration such as 1h or 90d, not {text!r}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m web", description=__doc__.partition("\n")[0])
    kinds = parser.add_subparsers(required=True, metavar="login|sessions|export|keys")
    exported = kinds.add_parser("export", help=export.__doc__)
    exported.add_argument("file")
    for name in ("format", "columns", *_FILTERS):
        exported.add_argument(f"--{name.replace('_', '-')}", help="as for GET /data/export")
    exported.set_defaults(alone=export)
    _command(kinds, "login", login).add_argument("--role", default=Role.ADMIN, choices=[str(role) for role in Role])
    begun = kinds.add_parser("sessions", help="who is signed in to the pages")
    known = begun.add_subparsers(required=True, metavar="list|revoke")
    _command(known, "list", show_sessions)
    _command(known, "revoke", end).add_argument("id", type=int)
    keys = kinds.add_parser("keys", help="API keys")
    commands = keys.add_subparsers(required=True, metavar="create|list|revoke|rotate")
    made = _command(commands, "create", create)
    made.add_argument("name")
    made.add_argument("--role", required=True, choices=[str(role) for role in Role])
    made.add_argument("--expires", type=_duration, help="such as 90d; without, it does not end by itself")
    _command(commands, "list", show)
    _command(commands, "revoke", revoke).add_argument("id", type=int)
    replaced = _command(commands, "rotate", rotate)
    replaced.add_argument("id", type=int)
    replaced.add_argument("--overlap", type=_duration, default=duration("1h"), help="how long the old one goes on")
    return parser


def _command(commands: Any, name: str, work: Callable[..., Said]) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=work.__doc__)
    made.set_defaults(work=work)
    return made


def main(arguments: list[str]) -> int:
    """Run one command; 0 on success."""
    given = _parser().parse_args(arguments)
    alone = getattr(given, "alone", None)
    return exit_code(lambda: alone(given) if alone else _run(given))


def _run(given: argparse.Namespace) -> None:
    if len(getattr(given, "name", "")) > 100 or "\x00" in getattr(given, "name", ""):
        raise ConfigError("the name of a key has at most 100 characters, and no NUL")
    database = Database(settings.load_connected().web_database_url, name="kasparro-keys", pool_size=1)
    try:
        said: Said = database.transact(given.work, given)
    finally:
        database.close()
    if said.note:
        print(said.note, file=sys.stderr)
    print(said.text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
