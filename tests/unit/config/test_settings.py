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
