"""The samples service: real earthquakes as a JSON API and as an Atom feed, for a first run without the internet."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from flask import Flask, Response, request

DATA = Path(__file__).resolve().parent.parent / "data" / "earthquakes.json"
ATOM = "http://www.w3.org/2005/Atom"
GEORSS = "http://www.georss.org/georss"

ET.register_namespace("", ATOM)
ET.register_namespace("georss", GEORSS)

app = Flask("samples", static_folder=None)


@app.get("/earthquakes.json")
def earthquakes() -> Response:
    """The GeoJSON file."""
    return _conditional(DATA.read_bytes(), "application/geo+json")


@app.get("/earthquakes.atom")
def feed() -> Response:
    """The same events as Atom."""
    return _conditional(_feed(), "application/atom+xml; charset=utf-8")


@app.get("/health")
def health() -> dict[str, str]:
    """Answers when the service is up."""
    return {"status": "ok"}


def _conditional(body: bytes, kind: str) -> Response:
    response = Response(body, content_type=kind)
    response.add_etag()
    response.make_conditional(request)
    return response


@cache
def _feed() -> bytes:
    events = json.loads(DATA.read_text(encoding="utf-8"))
    root = ET.Element(f"{{{ATOM}}}feed")
    _add(root, "id", "tag:samples,2018:earthquakes")
    _add(root, "title", events["metadata"]["title"])
    _add(root, "updated", _time(events["metadata"]["generated"]))
    for event in events["features"]:
        _add_entry(root, event)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add_entry(root: ET.Element, event: dict[str, Any]) -> None:
    about = event["properties"]
    entry = _add(root, "entry")
    _add(entry, "id", f"urn:earthquake-usgs-gov:{about['net']}:{about['code']}")
    _add(entry, "title", about["title"])
    _add(entry, "updated", _time(about["updated"]))
    _add(entry, "published", _time(about["time"]))
    _add(entry, "link", rel="alternate", type="text/html", href=about["url"])
    _add(entry, "summary", f"{about['type']}, {about['place']}")
    _add(entry, "category", label="Magnitude", term=f"Magnitude {int(about['mag'] or 0)}")
    longitude, latitude, _depth = event["geometry"]["coordinates"]
    ET.SubElement(entry, f"{{{GEORSS}}}point").text = f"{latitude} {longitude}"


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, f"{{{ATOM}}}{tag}", attributes)
    element.text = text
    return element


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")
