"""Documents of many sources, in a file or sent: read, checked as a whole, and refused as a whole."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from etl.declare.complaints import explain
from etl.declare.source import AnySource, Schedule, SourcesFile, parse, secrets_of
from etl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Of a document that is sent.
DEEPEST = 50
# What `defaults` may set for all sources.
DEFAULTABLE = ("schedule", "timeout", "timezone", "max_rejected")


@dataclass(frozen=True)
class Scheduled:
    """A validated source with the schedule that applies to it."""

    source: AnySource
    schedule: Schedule


def load_catalog(
    path: Path,
    interval: str,
    secret: Callable[[str], str | None],
    is_reserved: Callable[[str], bool] = lambda _: False,
) -> list[Scheduled]:
    """Read a sources file.

    Args:
        path: the YAML file.
        interval: how often a source is pulled when neither it nor the file's defaults say.
        secret: gives the value of `${NAME}`, None when it is not set.
        is_reserved: tells the names that no source may use.

    Raises:
        ConfigError: one line that names the file, the source and the key.
    """
    return read_catalog(_read(path), path.name, interval, secret, is_reserved)


def read_catalog(
    document: Any,
    label: str,
    interval: str,
    secret: Callable[[str], str | None],
    is_reserved: Callable[[str], bool] = lambda _: False,
) -> list[Scheduled]:
    """The sources of a document that was taken apart already; `label` says where it comes from.

    Raises:
        ConfigError: one line that names the label, the source and the key.
    """
    try:
        file = msgspec.convert(document, SourcesFile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{label}: {explain(error)}") from error
    defaults = file.defaults if isinstance(file.defaults, dict) else {}
    for key in defaults:
        if key not in DEFAULTABLE:
            raise ConfigError(f"{label}: defaults: unknown key `{key}`; there are {', '.join(DEFAULTABLE)}")
    seen: set[str] = set()
    return [
        _entry(label, number, {**defaults, **entry}, seen, interval, _Secrets(secret, is_reserved))
        for number, entry in enumerate(file.sources, 1)
    ]


@dataclass(frozen=True)
class _Secrets:
    """The values of `${NAME}`, and which names are not for sources."""

    value: Callable[[str], str | None]
    is_reserved: Callable[[str], bool]

    def refusal(self, source: AnySource) -> tuple[str, str] | None:
        """A secret that the source may not name or that it lacks, and what is wrong with it."""
        for name in secrets_of(source):
            if self.is_reserved(name):
                return name, f"{name} is a setting of the service itself, which no source may send"
            if source.enabled and not self.value(name):
                return name, f"the secret {name} is not set in the environment or .env"
        return None


def _entry(
    file: str, number: int, entry: dict[str, Any], seen: set[str], interval: str, secrets: _Secrets
) -> Scheduled:
    label = f"{file}: source {entry['name']!r}" if entry.get("name") else f"{file}: source number {number}"
    try:
        source = parse(entry)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error.message}") from error
    if source.name in seen:
        raise ConfigError(f"{label}: duplicate `name`")
    seen.add(source.name)
    if refusal := secrets.refusal(source):
        name, message = refusal
        raise ConfigError(f"{label}: `{_place(entry, name)}`: {message}")
    return Scheduled(source, source.schedule or Schedule(every=interval))


def _place(value: Any, secret: str, path: str = "") -> str:
    """The key whose value names a secret."""
    if isinstance(value, dict):
        found = (_place(child, secret, f"{path}.{key}" if path else str(key)) for key, child in value.items())
        return next(filter(None, found), "")
    return path if f"${{{secret}}}" in str(value) else ""


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8") from error
    with _explained(path.name):
        return yaml.load(text, _StrictLoader)  # noqa: S506 -- a SafeLoader


def read_foreign_yaml(text: str, label: str) -> Any:
    """YAML from somebody who is not trusted: without aliases, which could stand for very much, tags and depth.

    Raises:
        ConfigError: it is not valid, or has one of those.
    """
    with _explained(label):
        _check_depth(text, label)
        loader = _StrictLoader(text)
        try:
            # Here an alias is one more way to a node: nothing of it is copied yet.
            node = loader.get_single_node()
            _check_nodes(node, label)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()


_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))


def _check_depth(text: str, label: str) -> None:
    """By its events, one after the other: what makes nodes of them goes down the depth of a document as calls, in C."""
    depth = 0
    for event in yaml.parse(text, _StrictLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST + 1:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigError(f"{label}: line {line}: nested deeper than {DEEPEST}")


def _check_nodes(root: yaml.Node | None, label: str) -> None:
    seen: set[int] = set()
    level = [root] if root is not None else []
    for depth in itertools.count():
        if not level:
            return
        below: list[yaml.Node] = []
        for node in level:
            if refusal := _refusal(node, depth, seen):
                raise ConfigError(f"{label}: line {node.start_mark.line + 1}: {refusal}")
            seen.add(id(node))
            below += itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else ()
            below += node.value if isinstance(node, yaml.SequenceNode) else ()
        level = below


def _refusal(node: yaml.Node, depth: int, seen: set[int]) -> str | None:
    if id(node) in seen:
        return "anchors and aliases are not taken"
    if node.tag not in _PLAIN:
        return "tags and times are not taken; put a text into quotation marks"
    return f"nested deeper than {DEEPEST}" if depth > DEEPEST else None


@contextmanager
def _explained(label: str) -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}:" if mark else ""
        raise ConfigError(f"{label}:{place} {getattr(error, 'problem', None) or 'not valid YAML'}") from error
    except (ValueError, OverflowError, KeyError, RecursionError) as error:
        # Such as a number of more digits than are read, or a truth that is neither.
        raise ConfigError(f"{label}: not valid YAML: {error}") from error


# libyaml's parser, where it is there, takes a tenth of the time.
class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # chosen when it runs
    """Refuses a key that stands twice in one mapping, of which YAML would keep the last, and one that is no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML calls it so
        """Build a mapping whose keys are all different."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key `{key}` is no text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` stands twice", key_node.start_mark
                )
            seen.add(key)
        return dict(super().construct_mapping(node, deep=deep))
