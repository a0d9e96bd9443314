from pathlib import Path

import pytest

from config import settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEB_PORT", "80x"),
        ("WEB_PORT", "70000"),
        ("BATCH_SIZE", "0"),
        ("ETL_INTERVAL", "30"),
        ("ENABLE_SCHEDULER", "maybe"),
        ("DATABASE_URL", "mysql://x"),
        ("REDIS_URL", "http://x"),
        ("LOG_LEVEL", "LOUD"),
        ("MAX_RECORD", "4 MB"),
        ("MAX_RECORD", "0"),
        ("MAX_RECORD", "17 MiB"),
        ("ALLOWED_PRIVATE_HOSTS", "http://10.0.0.5"),
        ("ALLOWED_PRIVATE_HOSTS", "http://10.0.0.5:80/"),
        ("ALLOWED_PRIVATE_HOSTS", "*"),
        ("ALLOWED_PRIVATE_HOSTS", "*.example.com"),
        ("ALLOWED_PRIVATE_HOSTS", "10.0.0.0/33"),
        ("ALLOWED_PRIVATE_HOSTS", "10.0.0"),
        ("ALLOWED_PRIVATE_HOSTS", "host:http"),
        ("ALLOWED_PRIVATE_HOSTS", "[::1]x"),
        ("ALLOWED_PRIVATE_HOSTS", "a b//c"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(settings.SettingError, match=name):
        settings.read({name: value})


def test_defaults_are_those_of_the_documentation() -> None:
    read = settings.read({})
    assert (read.web_port, read.flower_port, read.batch_size, read.max_retries) == (8000, 5555, 5000, 3)
    assert read.lease.total_seconds() == 60
    assert read.etl_interval.total_seconds() == 1800
    assert not read.public


@pytest.mark.parametrize(
    ("text", "size"), [("4 MiB", 4 << 20), ("4MiB", 4 << 20), ("512 KiB", 512 << 10), ("1000", 1000), ("", 4 << 20)]
)
def test_sizes_are_bytes_or_have_a_unit(text: str, size: int) -> None:
    assert settings.read({"MAX_RECORD": text}).max_record == size


def test_secrets_do_not_show() -> None:
    read = settings.read({"API_KEYS": "hunter2", "TOKEN": "hunter2", "FLOWER_BASIC_AUTH": "a:hunter2"})
    assert "hunter2" not in repr(read)
    assert read.secret("TOKEN") == "hunter2"
    assert read.secret("ABSENT") is None


@pytest.mark.parametrize(
    "name",
    [
        *("DATABASE_URL", "REDIS_URL", "API_KEYS", "FLOWER_BASIC_AUTH", "ALERT_URLS", "LEASE_SECONDS"),
        *("POSTGRES_PASSWORD", "REDIS_PASSWORD", "KASPARRO_POSTGRES", "DATABASE_URL_FILE", "database_url"),
    ],
)
def test_what_the_service_is_configured_with_is_no_secret_of_sources(name: str) -> None:
    assert settings.is_own(name)
    assert settings.read({name: ""}).secret(name) is None


@pytest.mark.parametrize("name", ["COINGECKO_API_KEY", "SAMPLES_URL", "API_KEY", "MY_DATABASE_URL"])
def test_all_other_variables_are(name: str) -> None:
    assert settings.read({name: "v"}).secret(name) == "v"


def test_a_setting_of_the_service_is_not_given_to_sources() -> None:
    assert settings.read({"HEARTBEAT_URL": "http://a/"}).secret("HEARTBEAT_URL") is None


def test_private_hosts_are_written_as_they_are_compared() -> None:
    text = "Intern, db.local:81 10.0.0.5 10.0.0.5:80 10.1.2.3/16 [::1]:8001 ::1 FD00:0::1 fd00::/8"
    assert settings.read({"ALLOWED_PRIVATE_HOSTS": text}).allowed_private_hosts == (
        *("intern", "db.local:81", "10.0.0.5", "10.0.0.5:80", "10.1.0.0/16", "::1:8001", "::1", "fd00::1", "fd00::/8"),
    )


def test_a_secret_that_is_written_into_the_file_later_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    monkeypatch.setenv("ENV_FILE", str(file))
    current = settings.read({})
    assert current.secret("SHOP_KEY") is None
    file.write_text("SHOP_KEY=first\n")
    assert current.secret("SHOP_KEY") == "first"
    file.write_text("SHOP_KEY=the second\nAPI_KEYS=x\n")
    assert (current.secret("SHOP_KEY"), current.secret("API_KEYS")) == ("the second", None)
    monkeypatch.setenv("SHOP_KEY", " \n")
    assert current.secret("SHOP_KEY") == "the second"
    monkeypatch.setenv("SHOP_KEY", "of the process\n")
    assert current.secret("SHOP_KEY") == "of the process"


def test_settings_can_be_shown() -> None:
    passwords = {
        "DATABASE_URL": "postgresql://a:hidden@h/d",  # pragma: allowlist secret
        "WEB_DATABASE_URL": "postgresql://b:hidden@h/d",  # pragma: allowlist secret
        "ADMIN_DATABASE_URL": "postgresql://c:hidden@h/d",  # pragma: allowlist secret
        "REDIS_URL": "redis://:hidden@h/0",  # pragma: allowlist secret
        "API_KEYS": "hidden",  # pragma: allowlist secret
        "FLOWER_BASIC_AUTH": "a:hidden",
        "SHOP_KEY": "hidden",  # pragma: allowlist secret
    }
    assert "hidden" not in repr(settings.read(passwords))


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("one-key\n")
    (tmp_path / "token").write_text("s3cr3t\n")
    monkeypatch.setenv("API_KEYS_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("SHOP_TOKEN_FILE", str(tmp_path / "token"))
    current = settings.read(settings.environment())
    assert current.api_keys == ("one-key",)
    assert current.secret("SHOP_TOKEN") == "s3cr3t"
    monkeypatch.setenv("SHOP_TOKEN", "nearer")
    assert current.secret("SHOP_TOKEN") == "nearer"
    assert current.secret("API_KEYS") is None


def test_a_file_of_a_secret_that_is_not_there_stops_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS_FILE", "/nowhere/key")
    with pytest.raises(settings.SettingError, match="API_KEYS_FILE"):
        settings.environment()
