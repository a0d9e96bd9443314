"""Signing in to the pages: by a link that counts once, or by a key; what a session may, and how it ends."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from config.settings import PROJECT
from db.queries.keys import create_key
from db.queries.sessions import create_link, list_sessions, purge_sessions
from etl.access.keys import hash_key
from etl.access.roles import Role
from testkit.runner import SourceRunner
from web.app import create_app

SETTINGS_KEY = "correct horse battery staple"
OWN = {"Origin": "http://localhost"}


@pytest.fixture
def app(runner: SourceRunner) -> Flask:
    settings = replace(runner.settings, web_host="0.0.0.0", api_keys=(hash_key(SETTINGS_KEY),))
    return create_app(settings, runner.database)


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()


def link_of(runner: SourceRunner, role: Role = Role.ADMIN) -> str:
    return runner.database.transact(create_link, "by link", role)


def sign_in(browser: FlaskClient, **form: str) -> int:
    return browser.post("/ui/sign-in", data=form, headers=OWN).status_code


def is_in(browser: FlaskClient) -> bool:
    return browser.get("/ui/account").status_code == 200


def test_a_link_signs_in_once(app: Flask, runner: SourceRunner, browser: FlaskClient) -> None:
    link = link_of(runner)
    assert not is_in(browser)
    # To look at it, as a chat program does for a preview, does not use it up.
    for _ in range(2):
        shown = app.test_client().get(f"/ui/sign-in?link={link}")
        assert shown.status_code == 200
        assert link in shown.text
    assert sign_in(browser, link=link) == 303
    assert is_in(browser)
    other = app.test_client()
    assert sign_in(other, link=link) == 403
    assert not is_in(other)


def test_of_many_that_open_a_link_at_once_one_is_in(app: Flask, runner: SourceRunner) -> None:
    link, seen = link_of(runner), []
    threads = [threading.Thread(target=lambda: seen.append(sign_in(app.test_client(), link=link))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [303] + [403] * 7


def test_a_link_is_over_after_ten_minutes(runner: SourceRunner, browser: FlaskClient) -> None:
    link = link_of(runner)
    with runner.database.transaction() as connection:
        left = connection.execute(text("SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM sessions"))
        assert 590 < left.scalar_one() <= 600
        connection.execute(text("UPDATE sessions SET expires_at = clock_timestamp() - interval '1 second'"))
    assert sign_in(browser, link=link) == 403


def test_the_cookie_is_for_the_pages_alone(runner: SourceRunner, browser: FlaskClient) -> None:
    answer = browser.post("/ui/sign-in", data={"link": link_of(runner)}, headers=OWN)
    cookie = answer.headers["Set-Cookie"]
    for word in ("HttpOnly", "SameSite=Lax", "Path=/ui", "Max-Age=604800"):
        assert word in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    # Not even when it is sent where it does not belong.
    assert browser.get("/data", headers={"Cookie": f"kasparro_session={value}"}).status_code == 401
    assert browser.get("/ui/account", headers={"Cookie": f"kasparro_session={value}"}).status_code == 200
    forged = value[:-2] + ("aa" if value[-2:] != "aa" else "bb")
    browser.delete_cookie("kasparro_session", path="/ui")
    assert browser.get("/ui/account", headers={"Cookie": f"kasparro_session={forged}"}).status_code == 303
    with runner.database.transaction() as connection:
        stored = connection.execute(text("SELECT s::text FROM sessions s")).scalar_one()
    assert value.partition(".")[0] not in stored


def test_a_session_ends_when_its_holder_leaves(runner: SourceRunner, browser: FlaskClient) -> None:
    answer = browser.post("/ui/sign-in", data={"link": link_of(runner)}, headers=OWN)
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    assert browser.post("/ui/sign-out", headers=OWN).status_code == 303
    assert not is_in(browser)
    assert browser.get("/ui/account", headers={"Cookie": cookie}).status_code == 303


def test_a_session_ends_with_its_key(runner: SourceRunner, browser: FlaskClient) -> None:
    with runner.database.transaction() as connection:
        row, key = create_key(connection, "ops", Role.OPERATE, "tests")
    assert sign_in(browser, key="kas_wrong") == 403
    assert sign_in(browser, key=f" {key.text} ") == 303
    assert "ops" in browser.get("/ui/account").text
    with runner.database.transaction() as connection:
        connection.execute(text("UPDATE api_keys SET revoked_at = clock_timestamp()"))
        assert list_sessions(connection, 10) == []
    assert not is_in(browser)
    assert row.key_id


def test_a_session_of_a_key_of_the_settings_ends_with_it(runner: SourceRunner, app: Flask) -> None:
    browser = app.test_client()
    answer = browser.post("/ui/sign-in", data={"key": SETTINGS_KEY}, headers=OWN)
    cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    assert browser.get("/ui/account").status_code == 200
    others = replace(runner.settings, web_host="0.0.0.0", api_keys=(hash_key("another"),))
    assert create_app(others, runner.database).test_client().get("/ui/account", headers=cookie).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {**OWN, "Sec-Fetch-Site": "cross-site"}],
)
def test_a_form_of_another_site_does_nothing(
    runner: SourceRunner, browser: FlaskClient, headers: dict[str, str]
) -> None:
    assert browser.post("/ui/sign-in", data={"link": link_of(runner)}, headers=headers).status_code == 403
    assert sign_in(browser, link=link_of(runner)) == 303
    assert browser.post("/ui/sign-out", headers=headers).status_code == 403
    assert is_in(browser)


@pytest.mark.parametrize(
    ("wanted", "leads_to"),
    [
        ("/ui/account?x=1", "/ui/account?x=1"),
        ("https://evil.example/ui/", "/ui/overview"),
        ("//evil.example/ui/", "/ui/overview"),
        ("/ui/\\evil", "/ui/overview"),
        ("/data", "/ui/overview"),
    ],
)
def test_it_leads_back_to_pages_alone(runner: SourceRunner, browser: FlaskClient, wanted: str, leads_to: str) -> None:
    answer = browser.post("/ui/sign-in", data={"link": link_of(runner), "next": wanted}, headers=OWN)
    assert answer.location == leads_to


def test_who_is_not_signed_in_is_led_there_and_back(runner: SourceRunner, browser: FlaskClient) -> None:
    led = browser.get("/ui/account?x=1")
    assert urlsplit(led.location).path == "/ui/sign-in"
    assert parse_qs(urlsplit(led.location).query) == {"next": ["/ui/account?x=1"]}
    assert 'value="/ui/account?x=1"' in browser.get(led.location).text


def test_pages_hold_nothing_of_elsewhere(browser: FlaskClient) -> None:
    shown = browser.get("/ui/sign-in?link=%22%3E%3Cscript%3E")
    policy = shown.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert shown.headers["Referrer-Policy"] == "same-origin"
    assert "<script>" not in shown.text
    assert not re.search(r"<script(?! src=\"/ui/static/)", shown.text)
    assert not re.search(r"(src|href)=\"(?!/|#|data:,)", shown.text)
    for address in re.findall(r'href="(/ui/static/[^"]+)"', shown.text):
        answer = browser.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        answer.close()
    assert browser.get("/ui/static/../app.py").status_code in {303, 404}


def test_what_others_wrote_is_as_they_published_it() -> None:
    folder = PROJECT / "web" / "static" / "vendor"
    listed = re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (folder / "VENDOR.md").read_text(), re.MULTILINE)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    found.pop("VENDOR.md")
    assert dict(listed) == found


def test_links_and_sessions_from_a_shell(runner: SourceRunner, browser: FlaskClient) -> None:
    def shell(*words: str) -> str:
        database = {"DATABASE_URL": runner.settings.database_url, "PATH": "/usr/bin:/bin", "WEB_PORT": "8123"}
        command = [sys.executable, "-m", "web", *words]
        return subprocess.run(
            command, env=database, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()

    address = urlsplit(shell("login", "--role", "read"))
    assert (address.netloc, address.path) == ("127.0.0.1:8123", "/ui/sign-in")
    assert "not used yet" in shell("sessions", "list")
    assert sign_in(browser, link=parse_qs(address.query)["link"][0]) == 303
    assert "role <strong>read</strong>" in browser.get("/ui/account").text
    shown = shell("sessions", "list")
    assert "not used yet" not in shown
    number = shown.splitlines()[1].split()[0]
    assert "is over" in shell("sessions", "revoke", number)
    assert not is_in(browser)


def test_old_sessions_are_removed(runner: SourceRunner) -> None:
    link_of(runner)
    link_of(runner)
    with runner.database.transaction() as connection:
        connection.execute(text("UPDATE sessions SET expires_at = now() - interval '31 days' WHERE session_id = 1"))
        assert purge_sessions(connection, 10) == 1
        assert len(list_sessions(connection, 10)) == 1
