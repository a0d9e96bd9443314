"""Runs seen from outside: asked for and followed over the service's own HTTP interface."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests

from etl.runs.outcome import ACTIVE, ENDED
from stack.ports import listeners

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings

POLL_SECONDS = 0.5
# As many as the service tells of at once.
ASKED_AT_ONCE = 100


class ServiceError(Exception):
    """The service did not answer, or refused."""


@dataclass(frozen=True)
class Queued:
    """What came of asking for runs: the ids that were told, and how many runs there are."""

    run_ids: list[str]
    total: int


# Events that tell of something odd.
WARNINGS = frozenset({"warning", "drift", "empty", "odd_size"})


class Client:
    """Talks to the web process of a stack."""

    def __init__(self, settings: Settings) -> None:
        """The admin key of the stack is used where there is one and a call needs it."""
        host = settings.web_host if settings.web_host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{settings.web_port}"
        self._session = requests.Session()
        self._session.trust_env = False
        self._port, self._key_file = settings.web_port, settings.key_file

    def await_ready(self, seconds: float) -> None:
        """Wait until the service answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._call("GET", "/health/ready")
            except ServiceError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def queue(self, source: str | None, *, full: bool = False) -> Queued:
        """Ask for a run of one source, or of all; runs that are active already count. A `full` one reads all again."""
        body = {**({"source": source} if source else {}), **({"full": True} if full else {})}
        answer = self._call("POST", "/runs", body, accept=(409,))
        if "runs" in answer:
            total = answer["queued_total"] + answer["already_active_total"]
            return Queued([run["run_id"] for run in answer["runs"] if run["run_id"]], total)
        if not answer.get("active_run_id"):
            raise ServiceError(answer.get("detail", "nothing could be queued"))
        if source:
            return Queued([answer["active_run_id"]], 1)
        active = [run for status in ACTIVE for run in self._call("GET", f"/runs?status={status}&limit=500")["runs"]]
        return Queued([run["run_id"] for run in active], len(active))

    def follow(
        self, run_ids: list[str], seconds: float, progress: Callable[[list[dict[str, Any]], int], None]
    ) -> list[dict[str, Any]]:
        """Wait until runs have ended, or time is up; the last state of those that were seen.

        Of those that go on, a hundred at a time are asked for, in turns. `progress` gets them, and how many have ended.
        """
        deadline = time.monotonic() + seconds
        seen: dict[str, dict[str, Any]] = {}
        going_on = list(run_ids)
        while going_on:
            asked, others = going_on[:ASKED_AT_ONCE], going_on[ASKED_AT_ONCE:]
            shown = {run["run_id"]: run for run in self._call("GET", f"/runs?ids={','.join(asked)}")["runs"]}
            seen |= shown
            active = [run for run in shown.values() if run["status"] not in ENDED]
            going_on = others + [run["run_id"] for run in active]
            progress(active, len(run_ids) - len(going_on))
            if time.monotonic() > deadline:
                break
            if len(active) == len(shown):
                time.sleep(POLL_SECONDS)
        return [seen[run_id] for run_id in run_ids if run_id in seen]

    def warnings(self, run_id: str) -> list[str]:
        """What was warned of in a run."""
        events = self._call("GET", f"/runs/{run_id}")["events"]
        return [event["detail"]["message"] for event in events if event["event"] in WARNINGS]

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, accept: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        try:
            response = self._session.request(method, self.url + path, json=body, timeout=10)
            if response.status_code == HTTPStatus.UNAUTHORIZED and self._take_key():
                response = self._session.request(method, self.url + path, json=body, timeout=10)
        except requests.RequestException as error:
            raise ServiceError(f"the service does not answer at {self.url}: is it up? (make up)") from error
        try:
            answer = response.json()
        except ValueError as error:
            raise ServiceError(f"something else answers at {self.url}") from error
        if not response.ok and response.status_code not in accept:
            raise ServiceError(answer.get("detail", f"{method} {path} answered {response.status_code}"))
        return dict(answer)

    def _take_key(self) -> bool:
        """Send the key from now on. Not to a server of somebody else's, who may have taken the port."""
        if not self._key_file.is_file() or "Authorization" in self._session.headers:
            return False
        strangers = listeners(self._port) - {0, os.geteuid()}
        if strangers:
            raise ServiceError(
                f"the server at {self.url} belongs to another user of this machine; no key is sent to it"
            )
        self._session.headers["Authorization"] = f"Bearer {self._key_file.read_text().strip()}"
        return True
