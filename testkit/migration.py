"""`python -m testkit.migration WORDS`: a new migration, with what the models have and the newest revision has not."""

from __future__ import annotations

import subprocess
import sys

import alembic.command
from alembic.script import ScriptDirectory

from config.settings import PROJECT
from testkit.service import alembic_config, make_database, running_servers


def main(words: str) -> None:
    """Write the file, and say where it is."""
    with running_servers("kasparro-migration-") as (servers, _):
        config = alembic_config(make_database(servers, "head", template="migrated"))
        head = ScriptDirectory.from_config(config).get_current_head() or "0000"
        alembic.command.revision(config, words, autogenerate=True, rev_id=f"{int(head) + 1:04}")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(PROJECT / "alembic" / "versions")], check=False)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not "".join(sys.argv[1:]).strip():
        sys.exit('usage: make migration NAME="what it does"')
    main(" ".join(sys.argv[1:]))
