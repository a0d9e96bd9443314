"""What the images are built from."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import PROJECT
from stack import containers


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


# --- compose

STACK = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = STACK["services"]
OURS = ("migrate", "samples", "web", "worker", "beat", "flower")
# What a container may know, of passwords and keys.
SECRETS = (
    "POSTGRES_PASSWORD",
    "OWNER_PASSWORD",
    "WEB_PASSWORD",
    "REDIS_PASSWORD",
    "API_KEYS",
    "SESSION_SECRET",
    "FLOWER_BASIC_AUTH",
)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert name in {"postgres", "redis"} or "cap_add" not in service
    assert not service.get("ports") or service["ports"][0].startswith("${PUBLISH_HOST:-127.0.0.1}:")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("postgres", {"POSTGRES_PASSWORD"}),
        ("redis", {"REDIS_PASSWORD"}),
        ("migrate", {"POSTGRES_PASSWORD", "OWNER_PASSWORD", "WEB_PASSWORD", "REDIS_PASSWORD"}),
        ("samples", set()),
        ("web", {"WEB_PASSWORD", "REDIS_PASSWORD", "API_KEYS", "SESSION_SECRET"}),
        ("worker", {"OWNER_PASSWORD", "REDIS_PASSWORD"}),
        ("beat", {"OWNER_PASSWORD", "REDIS_PASSWORD"}),
        ("flower", {"REDIS_PASSWORD", "FLOWER_BASIC_AUTH"}),
    ],
)
def test_a_container_knows_no_secret_of_another(name: str, known: set[str]) -> None:
    service = SERVICES[name]
    said = json.dumps(service.get("environment", {}))
    assert {secret for secret in SECRETS if f"${{{secret}" in said} == known
    assert ("env_file" in service) == (name in {"migrate", "web", "worker"}), "those of sources"
    argued = json.dumps([service.get("command"), service.get("healthcheck")])
    assert not any(f"${{{secret}" in argued for secret in SECRETS), "arguments are shown to everybody"


def test_containers_get_every_setting() -> None:
    # Those of the stack around them are said here, or belong to the local one.
    around = {"DATABASE_URL", "WEB_DATABASE_URL", "ADMIN_DATABASE_URL", "STATE_DIR", "WEB_HOST", "WEB_PORT"}
    around |= {"FLOWER_PORT", "SAMPLES_PORT", "API_KEYS", "SESSION_SECRET", "FLOWER_BASIC_AUTH"}
    read = set(re.findall(r'_get\(env, "([A-Z_]+)"', (PROJECT / "config/settings.py").read_text()))
    assert len(read) > 20
    for name in ("migrate", "worker", "beat", "web"):
        assert read - around - set(SERVICES[name]["environment"]) == set(), name


def test_the_secrets_of_sources_are_written_for_their_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, written = tmp_path / "env", tmp_path / "state" / "sources.env"
    given.write_text('SHOP_KEY=a$b\nQUOTED="it\'s $5"\nEMPTY=\nDATABASE_URL=postgresql://x\nOWNER_PASSWORD=x\n')
    monkeypatch.setenv("ENV_FILE", str(given))
    containers.write_source_secrets(written)
    assert written.read_text() == "SHOP_KEY='a$b'\nQUOTED=\"it's \\$5\"\n"
    assert written.stat().st_mode & 0o777 == 0o600
