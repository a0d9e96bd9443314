"""What the images are built from."""

from __future__ import annotations

import ast

import pytest

from config.settings import PROJECT


def own_modules(folder: str) -> set[str]:
    """The top-level modules of ours that the code in a folder imports."""
    found = set()
    for path in (PROJECT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name for name in names if name and (PROJECT / f"{name}.py").is_file()}
    return found


@pytest.mark.parametrize(("image", "folder"), [("Dockerfile.worker", "worker"), ("Dockerfile.web", "web")])
def test_an_image_holds_every_module_that_is_imported_in_it(image: str, folder: str) -> None:
    modules = own_modules(folder) | own_modules("db") | own_modules("etl") | {"celeryconfig"}
    copied = (PROJECT / image).read_text()
    sent = (PROJECT / ".dockerignore").read_text().splitlines()
    assert {name for name in modules if f"{name}.py" not in copied or f"!{name}.py" not in sent} == set()
