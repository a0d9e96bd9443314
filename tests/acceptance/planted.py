"""Secrets that are planted, how they may be written, and servers that say them back."""

from __future__ import annotations

import base64
import json
import secrets
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote

from etl.alerts.signature import new_secret
from testkit.fake_server import FakeServer, Handler, Request, Response, as_json

LETTERS = string.ascii_letters + string.digits
# Written otherwise in an address, in JSON and in HTML.
ODD = '/+&"'
# So much of a secret that is cut off is too much.
PART = 8


@dataclass(frozen=True)
class Secret:
    """A value that nobody may see. Its head and its tail stay as they are however it is quoted or escaped."""

    name: str
    value: str

    @classmethod
    def make(cls, name: str, odd: str = "", letters: str = LETTERS) -> Secret:
        head, tail = ("".join(secrets.choice(letters) for _ in range(12)) for _ in range(2))
        return cls(name, head + odd + tail)

    @property
    def forms(self) -> set[str]:
        """What tells that it stands in a text: as it is, in Base64 at any place, or as bytes written in hex."""
        ends = (self.value[:12], self.value[-12:])
        shown = {ends[0][:PART], ends[1][-PART:], *(form for end in ends for form in packed(end))}
        return shown | {form.encode().hex() for form in shown}

    def is_in(self, text: str) -> bool:
        return any(form in text for form in self.forms)


def packed(text: str) -> Iterator[str]:
    """The Base64 of a text, less the characters that depend on what stands around it."""
    for before in range(3):
        bits = 8 * (before + len(text))
        yield base64.b64encode(b" " * before + text.encode()).decode()[-(-before * 8 // 6) : bits // 6]


def found(places: Iterable[tuple[str, str]], wanted: Iterable[Secret]) -> list[tuple[str, str]]:
    """The places of secrets, each with the name of the secret."""
    forms = {secret.name: secret.forms for secret in wanted}
    return [(place, name) for place, text in places for name, known in forms.items() if any(f in text for f in known)]


# The outside world, which says back whatever it was told.


SAID = ("x-planted", "x-api-key", "cookie")


def said(asked: Request) -> str:
    """All that a request tells; what is packed in an `Authorization` also as it was before."""
    authorization = asked.headers.get("authorization", "")
    told = [authorization, *(asked.headers.get(name, "") for name in SAID), *asked.query.values()]
    if authorization.startswith("Basic "):
        told.append(base64.b64decode(authorization.removeprefix("Basic ")).decode())
    return " ".join(filter(None, [*told, asked.body.decode(), asked.path]))


def refusal(status: int, kind: str = "application/json", **headers: str) -> Handler:
    """An answer that says it all back: in its reason, in headers and in its body."""

    def answer(asked: Request) -> Response:
        text = said(asked)
        body = json.dumps({"error": {"message": text}}) if kind.endswith("json") else f"it was {text}"

        def write(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status, text)
            echoes = {"WWW-Authenticate": f"Bearer {text}", "Set-Cookie": f"sid={quote(text)}", "X-Error": text}
            for name, value in {"Content-Type": kind, **echoes, **headers}.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body.encode())

        return Response(raw=write)

    return answer


def page(*ids: int, **more: Any) -> dict[str, Any]:
    return {"items": [{"id": number, "title": f"thing {number}", "price": 1} for number in ids], **more}


Way = Callable[[FakeServer, str], dict[str, Any]]
WAYS: dict[str, Way] = {}
ISSUED = Secret.make("the token that was issued")


def way(make: Way) -> Way:
    """A source with a secret, which is given as it is written in the declaration, and a server of its own."""
    WAYS[make.__name__] = make
    return make


def header(url: str, named: str) -> dict[str, Any]:
    return {"url": url, "auth": {"kind": "header", "name": "X-Planted", "value": named}}


@way
def bearer(server: FakeServer, named: str) -> dict[str, Any]:
    """Moved for good to where the token stands in the address, and so it does in the link to the next page."""
    broken = [{"title": "no id"}, {"id": 9, "title": "x", "price": "much"}]

    def answer(asked: Request) -> Response:
        if asked.query.get("page") == "2":
            return as_json(page(2))
        told = page(1, next=f"/items?page=2&was={quote(said(asked), safe='')}")
        return as_json(told | {"items": told["items"] + broken})

    server.on("/items", answer)
    server.on("/a", lambda asked: Response(status=301, headers={"Location": f"/items?was={quote(said(asked))}"}))
    request = {"url": server.url + "/a", "auth": {"kind": "bearer", "token": named}}
    return {"request": request, "records": "items", "paginate": {"style": "next_url", "next": "next"}}


@way
def kept(server: FakeServer, named: str) -> dict[str, Any]:
    """Its cursor, its marks and its links hold the secret."""

    def answer(asked: Request) -> Response:
        told = as_json(page(2)) if "after" in asked.query else as_json(page(1, next=f"{said(asked)} 2"))
        text = asked.headers["x-planted"]
        told.headers |= {"ETag": f'"{text}"', "Last-Modified": text, "Link": f"</a?was={quote(text)}>; rel=next"}
        return told

    paginate = {"style": "cursor", "next": "next", "param": "after"}
    return {"request": header(server.on("/a", answer), named), "records": "items", "paginate": paginate}


@way
def basic(server: FakeServer, named: str) -> dict[str, Any]:
    auth = {"kind": "basic", "username": "somebody", "password": named}
    return {"request": {"url": server.on("/a", refusal(401)), "auth": auth}}


@way
def query(server: FakeServer, named: str) -> dict[str, Any]:
    auth = {"kind": "query", "name": "api_key", "value": named}
    return {"request": {"url": server.on("/a", refusal(500, "text/plain")), "auth": auth}}


@way
def malformed(server: FakeServer, named: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", lambda asked: Response(b'{"you": ' + said(asked).encode())), named)}


@way
def cookie(server: FakeServer, named: str) -> dict[str, Any]:
    def loop(asked: Request) -> Response:
        return Response(status=302, headers={"Location": f"/a?{quote(said(asked)[:500])}"})

    return {"request": {"url": server.on("/a", loop), "headers": {"Cookie": f"sid={named}; theme=dark"}}}


@way
def client(server: FakeServer, named: str) -> dict[str, Any]:
    auth = {"kind": "oauth2_client_credentials", "client_id": "somebody", "client_secret": named}
    return {"request": {"url": server.url + "/a", "auth": auth | {"token_url": server.on("/token", refusal(401))}}}


@way
def oauth(server: FakeServer, named: str) -> dict[str, Any]:
    """The token that it issues is a secret too."""
    token_url = server.json("/token", {"access_token": ISSUED.value, "expires_in": 3600})
    auth = {"kind": "oauth2_client_credentials", "token_url": token_url, "client_id": "somebody", "send": "body"}
    return {"request": {"url": server.on("/a", refusal(403)), "auth": auth | {"client_secret": named}}}


@way
def address(server: FakeServer, named: str) -> dict[str, Any]:
    """The whole address is the secret."""
    return {"type": "rss", "request": {"url": named}}


@way
def body(server: FakeServer, named: str) -> dict[str, Any]:
    return {"request": {"url": server.on("/a", refusal(422)), "body": {"login": {"password": named}}}}


@way
def download(server: FakeServer, named: str) -> dict[str, Any]:
    url = server.on("/a.csv", lambda asked: Response(f"<html><p>{said(asked)}</p></html>".encode()))
    return {"type": "csv", "request": header(url, named)}


@way
def turned_down(server: FakeServer, named: str) -> dict[str, Any]:
    """Answered with 200, and an error in it."""
    url = server.on("/a", lambda asked: as_json({"ok": False, "reason": said(asked)}))
    return {"request": header(url, named), "success": "ok", "records": "items"}


@way
def foreign(server: FakeServer, named: str) -> dict[str, Any]:
    """It leads to another host, whose name and path are the secret."""

    def answer(asked: Request) -> Response:
        text = quote(said(asked), safe="")
        return Response(b"[]", headers={"Link": f'<http://{text}.test/{text}?{text}>; rel="next"'})

    url = server.on("/a", answer)
    return {"request": {"url": url, "params": {"token": named}}, "paginate": {"style": "link_header"}}


@way
def limited(server: FakeServer, named: str) -> dict[str, Any]:
    return {"request": header(server.on("/a", refusal(429, Retry_After="9000")), named)}


@way
def written_header(server: FakeServer, named: str) -> dict[str, Any]:
    return {"request": {"url": server.on("/a", refusal(403)), "headers": {"X-Api-Key": named}}}


@way
def written_parameter(server: FakeServer, named: str) -> dict[str, Any]:
    return {"request": {"url": server.on("/a", refusal(403)), "params": {"api_key": named}}}


@way
def written_query(server: FakeServer, named: str) -> dict[str, Any]:
    return {"request": {"url": f"{server.on('/a', refusal(403))}?access_token={quote(named, safe='')}"}}


# These stand in the file as they are, which is warned of.
WRITTEN = ("written_header", "written_parameter", "written_query")
IN_FILE = ("bearer", "basic", *WRITTEN)
BY_PUT = ("query", "malformed", "cookie", "kept", "client", "address")
OF_SOURCES = {name: Secret.make(name, ODD) for name in WAYS}
OF_SERVICE = {
    "DATABASE_URL": Secret.make("the password of DATABASE_URL", ODD),
    "WEB_DATABASE_URL": Secret.make("the password of WEB_DATABASE_URL", ODD),
    "REDIS_URL": Secret.make("the password of REDIS_URL", ODD),
    "API_KEYS": Secret.make("the key of API_KEYS"),
    "FLOWER_BASIC_AUTH": Secret.make("the password of Flower"),
    "ALERT_URLS": Secret.make("the token of a webhook", ODD),
    "ALERT_PEOPLE": Secret.make("the password in an address of people", ODD),
    "ALERT_SECRET": Secret("what webhooks are signed with", new_secret()),
    "HEARTBEAT_URL": Secret.make("the token of the heartbeat", ODD),
}
REPEATED = Secret.make("the Idempotency-Key")
LITERAL = Secret.make("a credential written into a source", ODD)
NUMBER = Secret.make("a credential that is a number", letters="123456789")
# What stands in the file is stored as it stands there: workers read it from the table. Nowhere else may it be.
STORED = {(f"tables: {table}", name) for table in ("sources", "source_versions") for name in WRITTEN}
# It names a request, and lets nobody in.
STORED |= {("tables: idempotency_keys", REPEATED.name)}
