"""Answers that are given beforehand, in the place of the network."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPResponse

from etl.errors import RefusedError

if TYPE_CHECKING:
    from etl.http.transport import ConnectionLimits


@dataclass(frozen=True)
class Answer:
    """What is answered to requests for an address, with at least the parameters that it has, in any order."""

    url: str
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    method: str | None = None

    def is_to(self, request: requests.PreparedRequest) -> bool:
        """Whether it is the answer to a request."""
        ours, asked = urlsplit(self.url), urlsplit(request.url or "")
        wanted = parse_qsl(ours.query, keep_blank_values=True)
        given = parse_qsl(asked.query, keep_blank_values=True)
        return (
            (ours.scheme, ours.netloc.lower(), ours.path or "/")
            == (asked.scheme, asked.netloc.lower(), asked.path or "/")
            and all(pair in given for pair in wanted)
            and self.method in {None, request.method}
        )


class Answers(BaseAdapter):
    """The first answer of those that fit which was not given before, else the last that was."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__()
        self._left = list(answers)
        self._given: list[Answer] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer a request.

        Raises:
            RefusedError: no answer to it is given.
        """
        answer = self._next(request)
        response = requests.Response()
        response.status_code = answer.status
        response.url, response.request = request.url or "", request
        headers = {"content-length": str(len(answer.body)), **answer.headers}
        response.headers = CaseInsensitiveDict(headers)
        response.raw = HTTPResponse(io.BytesIO(answer.body), headers=headers, preload_content=False)
        return response

    def _next(self, request: requests.PreparedRequest) -> Answer:
        for answer in self._left:
            if answer.is_to(request):
                self._left.remove(answer)
                self._given.append(answer)
                return answer
        for answer in reversed(self._given):
            if answer.is_to(request):
                return answer
        raise RefusedError(f"no answer is given to {request.method} {request.url}", code="no_answer_given")

    def close(self) -> None:
        """Nothing is open."""


def offline_session(answers: list[Answer], _: ConnectionLimits) -> requests.Session:
    """A session that reaches nothing."""
    session = requests.Session()
    session.trust_env = False
    adapter = Answers(answers)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
