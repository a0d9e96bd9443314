"""The sources that share a service: a few that are well, and many that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.neighbours import answers, launcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.neighbours.answers import Answer

# In this order an address's second number is made from the kind.
KINDS = ("healthy", "dead", "dripping", "hostile", "deadly")
EVERY = {"healthy": "10s"}
_TYPES = ("api", "rss", "csv")
_HOSTILE: dict[str, tuple[Answer, dict[str, Any]]] = {
    "bare_returns": (answers.bare_returns, {"type": "csv"}),
    "equal_columns": (answers.equal_columns, {"type": "csv"}),
    "link_header": (answers.link_header, {"type": "api", "paginate": {"style": "link_header"}}),
    "long_base": (answers.long_base, {"type": "rss"}),
    "long_integer": (answers.long_integer, {"type": "api"}),
    "long_names": (answers.long_names, {"type": "csv", "identity": "content"}),
    "long_string": (answers.long_string, {"type": "api"}),
}


@dataclass(frozen=True)
class Neighbour:
    """A source, and what its server answers: nobody listens where that is None."""

    name: str
    kind: str
    number: int
    answer: Answer | None
    keys: dict[str, Any] = field(default_factory=lambda: {"type": "api"})

    @property
    def address(self) -> str:
        """Its own, so that what is known about its host is known about no other."""
        return f"127.{10 + KINDS.index(self.kind)}.{self.number // 200}.{1 + self.number % 200}"

    def document(self, port: int) -> dict[str, Any]:
        """The source as it is declared."""
        request = {"url": f"http://{self.address}:{port}/{self.name}"}
        return {"name": self.name, **self.keys, "request": request, "schedule": {"every": EVERY.get(self.kind, "60s")}}


def neighbours(counts: dict[str, int]) -> list[Neighbour]:
    """By kind so many of each; of `hostile` and `deadly` there are all or none."""
    made: dict[str, Callable[[int], Iterable[Neighbour]]] = {
        "healthy": lambda count: _numbered("healthy", count, lambda _: answers.healthy()),
        "dead": lambda count: _numbered("dead", count, _dead, _TYPES),
        "dripping": lambda count: _numbered("dripping", count, _dripping, ("api", "csv")),
        "hostile": lambda _: _hostile(),
        "deadly": lambda _: _deadly(),
    }
    return [one for kind, count in counts.items() if count for one in made[kind](count)]


def _numbered(kind: str, count: int, answer: Any, types: tuple[str, ...] = ("api",)) -> Iterator[Neighbour]:
    for number in range(count):
        yield Neighbour(f"{kind}_{number}", kind, number, answer(number), {"type": types[number % len(types)]})


def _dead(number: int) -> Answer | None:
    """Half refuse; of the others one in four sends headers before it falls silent."""
    if number % 2 == 0:
        return None
    return answers.silence_after_headers if number % 8 == 1 else answers.silence


def _dripping(number: int) -> Answer:
    return answers.dripping_csv if number % 2 else answers.dripping_json


def _hostile() -> Iterator[Neighbour]:
    for number, (name, (answer, keys)) in enumerate(_HOSTILE.items()):
        yield Neighbour(name, "hostile", number, answer, keys)


def _deadly() -> Iterator[Neighbour]:
    for number, path in enumerate(launcher.DEFECTS):
        yield Neighbour(path.removeprefix("/"), "deadly", number, answers.healthy())
