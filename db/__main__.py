"""Commands for the database.

python -m db migrate                                      bring the schema up to date
python -m db sources [--prune] [--adopt] [--dry-run]      apply the sources file

Sources that came from the file and are not in it any more go on, unless `--prune` disables them. One that was declared
over the API is refused, unless `--adopt` takes it over. With `--dry-run` it is only said what would change.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import alembic.command
import msgspec
from alembic.config import Config

from config import logs as log_config, settings
from db.command import exit_code
from db.queries.declaring import apply_sources
from db.queries.retention import add_partitions
from db.roles import Role, grant_web, make_roles
from db.session import Database
from etl.declare.catalog import load_catalog
from etl.declare.credentials import literal_credentials
from etl.declare.duration import written
from etl.declare.revision import Author, Origin
from etl.declare.source import CsvSource, doubts, dump, secrets_of
from etl.errors import ConfigError
from etl.files.find import check_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from db.queries.declaring import Applied
    from etl.declare.source import AnySource


# Of the sources that a line names.
MOST_NAMES = 20


def migrate() -> None:
    """Upgrade to the newest revision; the roles come first, and what the web may do last."""
    current = settings.load_connected()
    _make_roles(current)
    alembic.command.upgrade(alembic_config(), "head")
    database = Database(current.database_url, name="kasparro-migrate", pool_size=1)
    database.transact(add_partitions)
    database.transact(grant_web, current.web_database_url)
    database.close()


def _make_roles(current: Settings) -> None:
    """The roles of the service, where a superuser's address is given to make them by."""
    if not current.admin_database_url:
        return
    admin, owner, web = map(Role.of, (current.admin_database_url, current.database_url, current.web_database_url))
    if owner is None or owner == admin or (admin and admin.name in {owner.name, web and web.name}):
        message = "DATABASE_URL and WEB_DATABASE_URL have to name roles other than that of ADMIN_DATABASE_URL"
        raise settings.SettingError(message)
    make_roles(current.admin_database_url, owner, web if web and web.name != owner.name else None)


def alembic_config(url: str | None = None) -> Config:
    """Alembic's configuration; a `%` in the folder's name or in the address must not be taken for its own."""
    config = Config(settings.PROJECT / "alembic.ini")
    config.set_main_option("script_location", str(settings.PROJECT / "alembic").replace("%", "%%"))
    config.set_main_option("prepend_sys_path", str(settings.PROJECT).replace("%", "%%"))
    if url is not None:
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def sources(*options: str) -> None:
    """Apply the sources file, and say what that changed, or would."""
    prune, dry_run = "--prune" in options, "--dry-run" in options
    current = settings.load_connected()
    name = current.sources_file.name
    catalog = load_catalog(current.sources_file, written(current.etl_interval), current.secret, settings.is_own)
    for item in catalog:
        _check_file(item.source, current)
        for warning in _warnings(item.source, current):
            print(f"warning: {item.source.name}: {warning}", file=sys.stderr)
    database = Database(current.database_url, name="kasparro-sources", pool_size=1)
    try:
        author = Author(Origin.FILE, Origin.FILE, adopts="--adopt" in options)
        applied = database.transact(apply_sources, catalog, author, prune=prune, dry_run=dry_run)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.message}", code=error.code) from error
    finally:
        database.close()
    _show(applied, name, "would be " if dry_run else "")


def _show(applied: Applied, file: str, tense: str) -> None:
    for what in ("created", "changed", "disabled", "missing", "unchanged"):
        names = getattr(applied, what)
        if names:
            shown = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" * (len(names) > MOST_NAMES))
            print(f"sources {tense}{what}: {shown}")
    for source, found in list(applied.differences.items())[:MOST_NAMES]:
        for one in found:
            print(f"  {source}: {one.key}: {_brief(one.before)} -> {_brief(one.after)}")
    if applied.missing:
        print(f"Those missing are not in {file} any more, and go on; make sources PRUNE=1 disables them.")


def _brief(value: object) -> str:
    return "(not given)" if value is None else msgspec.json.encode(value).decode()[:100]


def _check_file(source: AnySource, current: Settings) -> None:
    """Files outside of CSV_ROOTS are refused here already, not only in the first run."""
    if not isinstance(source, CsvSource) or source.file is None:
        return
    try:
        check_place(source.file, current.sources_file.parent, current.csv_roots)
    except ConfigError as error:
        raise ConfigError(f"{current.sources_file.name}: source {source.name!r}: {error.message}") from error


def _warnings(source: AnySource, current: Settings) -> list[str]:
    placeholders = [name for name in secrets_of(source) if settings.is_placeholder(current.secret(name) or "")]
    written = [
        f"`{key}`: a credential is written here; name it as ${{NAME}}" for key in literal_credentials(dump(source))
    ]
    return [f"the secret {name} looks like a placeholder" for name in placeholders] + written + doubts(source)


_OPTIONS = {"--prune", "--adopt", "--dry-run"}


def main(arguments: list[str]) -> int:
    """Run one command; 0 on success."""
    match arguments:
        case ["migrate"]:
            return exit_code(lambda: _run(migrate))
        case ["sources", *options] if set(options) <= _OPTIONS:
            return exit_code(lambda: _run(partial(sources, *options)))
    print(__doc__, file=sys.stderr)
    return 2


def _run(command: Callable[[], None]) -> None:
    log_config.configure(settings.load_connected())
    command()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
