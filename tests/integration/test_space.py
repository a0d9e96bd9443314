"""Local copies leave room on the disk, and packed files of any making are read or refused in bounded time."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from etl.errors import ETLError, FormatError, ScratchError
from etl.files import space
from etl.files.archive import MAX_DIRECTORY, make_plain
from testkit.fake_server import FakeServer, Response
from testkit.reading import Recorder, read

LARGE = b"id,text\n" + b"1,x\n" * 10_000_000


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has less room than is to stay free."""
    monkeypatch.setattr(space, "RESERVE", 1 << 60)


def unpacked(path: Path, data: bytes) -> tuple[bytes, int]:
    """What a file unpacks to, and how many signs of life there were."""
    path.write_bytes(data)
    signs: list[None] = []
    plain = io.BytesIO()
    with path.open("rb") as packed:
        make_plain(packed, plain, None, lambda: signs.append(None))
    return plain.getvalue(), len(signs)


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_file_is_not_unpacked_into_the_last_room_of_the_disk(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "a.csv").write_bytes(pack(LARGE))
    with pytest.raises(ScratchError) as caught:
        read({"type": "csv", "file": "a.csv"}, Recorder().client(), tmp_path)
    assert caught.value.code == "no_space"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("kind", "body"), [("csv", LARGE), ("api", b"[" + b'{"id":1},' * 4_000_000 + b"1]")], ids=["csv", "api"]
)
def test_a_body_is_not_fetched_into_the_last_room_of_the_disk(
    fake_server: FakeServer, tmp_path: Path, kind: str, body: bytes
) -> None:
    request = {"url": fake_server.on("/a", Response(body))}
    with pytest.raises(ETLError) as caught:
        read({"type": kind, "request": request, "timeout": "20s"}, Recorder().client(), tmp_path)
    assert caught.value.code == "no_space"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full")
def test_small_copies_are_written_whatever_room_there_is(tmp_path: Path) -> None:
    assert unpacked(tmp_path / "a", gzip.compress(b"id\n1\n"))[0] == b"id\n1\n"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_empty_members_without_end_give_signs_of_life(tmp_path: Path, pack: Any) -> None:
    plain, signs = unpacked(tmp_path / "a", pack(b"") * 50_000 + pack(b"id\n1\n"))
    assert plain == b"id\n1\n"
    assert signs > 10


def test_a_zip_with_an_endless_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *[20, 0, 20, 0], *[0] * 4, *[0] * 3, 1, *[0] * 4, 0, 0) + b"a"
    directory = entry * (MAX_DIRECTORY // len(entry) + 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 4, 0)
    with pytest.raises(FormatError, match="directory is larger") as caught:
        unpacked(tmp_path / "a", b"PK\x03\x04" + directory + end)
    assert caught.value.code == "bad_archive"


def test_a_zip_of_one_file_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "made", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", LARGE)
    assert unpacked(tmp_path / "a", (tmp_path / "made").read_bytes())[0] == LARGE
