"""The product that is broken: the present one, or that of a commit, which today's suite would have broken then."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testkit.service import make_database
from testkit.tree import PRESENT, Tree, checked_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testkit.service import Servers


@dataclass(frozen=True)
class Product:
    """Whose code is run, and the name of a database that it has migrated, to be copied."""

    tree: Tree = PRESENT
    template: str = "migrated"


@contextlib.contextmanager
def product_of(commit: str, servers: Servers) -> Iterator[Product]:
    """A checkout of the commit, which has our `bench` to break it from within; without one the present product."""
    if not commit:
        yield Product()
        return
    with (
        tempfile.TemporaryDirectory(prefix="kasparro-against-") as name,
        checked_out(commit, Path(name) / "tree") as tree,
    ):
        shutil.rmtree(tree.path / "bench", ignore_errors=True)
        shutil.copytree(PRESENT.path / "bench", tree.path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
        tree.run("db", "migrate", DATABASE_URL=make_database(servers, "migrated_then"))
        yield Product(tree, "migrated_then")
