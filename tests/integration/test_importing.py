"""Sources made of a list: by what previews find, printed, and never applied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from config.settings import PROJECT
from etl.declare.catalog import read_catalog
from testkit.fake_server import FakeServer, Response

FEED = """<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>
<item><guid>1</guid><title>One</title></item><item><guid>2</guid><title>Two</title></item></channel></rss>"""


def imported(file: Path, server: FakeServer) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "ALLOWED_PRIVATE_HOSTS": "127.0.0.0/8", "STATE_DIR": str(file.parent)}
    command = [sys.executable, "-m", "worker", "import", str(file)]
    assert server.url
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_list_of_mixed_addresses(fake_server: FakeServer, tmp_path: Path) -> None:
    fake_server.on("/feed", Response(FEED.encode()))
    fake_server.on("/items.csv", Response(b"id,name,price\n1,Lamp,2\n2,Chair,3\n"))
    fake_server.on("/things", Response(b'[{"id": 1, "title": "Lamp"}]', headers={"Content-Type": "application/json"}))
    fake_server.on("/gone", Response(status=404))
    file = tmp_path / "list.txt"
    file.write_text("".join(f"{fake_server.url}/{path}\n" for path in ("feed", "items.csv", "things", "gone")))
    done = imported(file, fake_server)
    assert done.returncode == 0, done.stderr
    document = yaml.safe_load(done.stdout)
    assert [(one["type"], one["request"]["url"].rpartition("/")[2]) for one in document["sources"]] == [
        ("rss", "feed"),
        ("csv", "items.csv"),
        ("api", "things"),
    ]
    # What is printed can be applied as it is.
    assert len(read_catalog(document, "x", "30m", lambda name: name)) == 3
    assert "# " + fake_server.url + "/gone" in done.stdout
    assert "http_404" in done.stdout
    assert "4 of 4" in done.stderr


def test_opml_gives_feeds_with_tags(fake_server: FakeServer, tmp_path: Path) -> None:
    fake_server.on("/feed", Response(FEED.encode()))
    file = tmp_path / "feeds.opml"
    outline = f'<outline text="My News"><outline text="A&#10;- name: b" xmlUrl="{fake_server.url}/feed"/></outline>'
    file.write_text(f"<opml><body>{outline}</body></opml>")
    done = imported(file, fake_server)
    assert done.returncode == 0, done.stderr
    (source,) = yaml.safe_load(done.stdout)["sources"]
    assert source == {
        "name": "a_name_b",
        "type": "rss",
        "request": {"url": f"{fake_server.url}/feed"},
        "tags": ["my-news"],
    }


def test_what_is_no_list_is_one_line(fake_server: FakeServer, tmp_path: Path) -> None:
    done = imported(tmp_path / "nothing.opml", fake_server)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
