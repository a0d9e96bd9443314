"""Whose code a service runs: the present tree's, another folder's, or that of a commit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENVIRONMENTS = PROJECT / ".venv" / "trees"


@dataclass(frozen=True)
class Tree:
    """A version of the product: the folder of its code, and the interpreter that has what it requires."""

    path: Path
    python: str

    @classmethod
    def at(cls, path: Path) -> Tree:
        """A folder with a version of the product; an environment is made for it where ours does not fit."""
        return cls(path.resolve(), python_for(path / "requirements.txt"))

    def run(self, *arguments: str, **environment: str) -> None:
        """Run one of its modules to its end."""
        self._run("-m", *arguments, **environment)

    def output(self, *arguments: str, **environment: str) -> str:
        """What a script prints that is run with its code."""
        return self._run(*arguments, **environment).stdout.decode()

    def _run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(self.path), **environment}
        command = [self.python, *arguments]
        return subprocess.run(command, cwd=self.path, env=environment, check=True, timeout=300, stdout=subprocess.PIPE)


PRESENT = Tree(PROJECT, sys.executable)


@contextlib.contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Tree]:
    """The tree of a commit, in a git worktree at `folder` that is gone at the end."""
    try:
        _git("worktree", "add", "--quiet", "--detach", str(folder), commit)
        yield Tree.at(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _git("worktree", "prune")


def python_for(requirements: Path) -> str:
    """The present interpreter where the pinned requirements are the same, else that of an environment made once."""
    wanted = requirements.read_bytes()
    if wanted == (PROJECT / "requirements.txt").read_bytes():
        return sys.executable
    folder = _ENVIRONMENTS / hashlib.sha256(wanted).hexdigest()[:16]
    if not (folder / "installed").exists():
        _build(folder, requirements)
    return str(folder / "bin" / "python")


def is_commit(name: str) -> bool:
    """Whether git knows a commit by this name."""
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, check=False).returncode == 0


def _build(folder: Path, requirements: Path) -> None:
    print(f"· installing the requirements of {requirements.parent.name} (first time only)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([*pip, "wheel"], check=True)
    subprocess.run([*pip, "-r", requirements], check=True)
    (folder / "installed").touch()


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=PROJECT, check=True)
