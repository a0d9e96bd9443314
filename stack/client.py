"""Runs seen from outside: asked for and followed over the service's own HTTP interface."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import requests

from etl.runs.outcome import ACTIVE, ENDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings

POLL_SECONDS = 0.5


class ServiceError(Exception):
    """The service did not answer, or refused."""


class Client:
    """Talks to the web process of a stack."""

    def __init__(self, settings: Settings) -> None:
        """The admin key of the stack is used where there is one."""
        host = settings.web_host if settings.web_host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{settings.web_port}"
        self._session = requests.Session()
        self._session.trust_env = False
        if settings.key_file.is_file():
            self._session.headers["Authorization"] = f"Bearer {settings.key_file.read_text().strip()}"

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

    def queue(self, source: str | None) -> list[dict[str, Any]]:
        """Ask for a run of one source, or of all; runs that are active already count."""
        body = {"source": source} if source else {}
        answer = self._call("POST", "/runs", body, accept=(409,))
        if "runs" in answer:
            return list(answer["runs"])
        if not answer.get("active_run_id"):
            raise ServiceError(answer.get("detail", "nothing could be queued"))
        active = [run for status in ACTIVE for run in self._call("GET", f"/runs?status={status}")["runs"]]
        return [run for run in active if source in {None, run["source_name"]}]

    def follow(
        self, run_ids: list[str], seconds: float, progress: Callable[[list[dict[str, Any]]], None]
    ) -> list[dict[str, Any]]:
        """Wait until runs have ended, or time is up; their last state."""
        deadline = time.monotonic() + seconds
        while True:
            runs = [self._call("GET", f"/runs/{run_id}") for run_id in run_ids]
            progress(runs)
            if all(run["status"] in ENDED for run in runs) or time.monotonic() > deadline:
                return runs
            time.sleep(POLL_SECONDS)

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, accept: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        try:
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
