"""An export into a file, which goes on where it was when it is ended and asked for again.

Until it is whole it is called `NAME.part`; `NAME.part.json` beside it says how far it is. A piece that was written and
not noted is cut off again. Parquet has its table of contents at the end, so that one of these begins anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

import msgspec

from db.queries.exports import Format, last_id, origin, shown
from etl.errors import ConfigError
from web.packing import packed_alone, packing_of, unpacked
from web.parquet import parquet
from web.ranges import head, ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from db.queries.exports import Wanted
    from db.session import Database

_READ = 1024 * 1024


class Progress(msgspec.Struct):
    """How far a file is: what was asked for and of which database, the last id that there was, what is written."""

    asked: str
    export_id: str
    last: int
    after: int = 0
    items: int = 0
    size: int = 0


class Exported(msgspec.Struct, frozen=True):
    """What a file holds. `sha256` is that of its text, unpacked, less the last line of ndjson."""

    items: int
    sha256: str


class ExportFile:
    """A file that is written."""

    def __init__(self, path: Path, database: Database, wanted: Wanted, tell: Callable[[int], None]) -> None:
        """`tell` hears how many items are written."""
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._noted = path.with_name(path.name + ".part.json")
        self._packing = packing_of(path)
        self._database = database
        self._wanted = wanted
        self._tell = tell

    def write(self) -> Exported:
        """Write all of it, or the rest.

        Raises:
            ConfigError: it cannot be written, or another writes it.
        """
        is_parquet = self._wanted.format is Format.PARQUET
        if is_parquet and self._packing:
            raise ConfigError(f"{self._path}: Parquet is packed already; leave the ending off")
        try:
            with self._alone() as file:
                done = self._parquet(file) if is_parquet else self._text(file)
                os.fsync(file.fileno())
                self._part.replace(self._path)
                self._noted.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from error
        return done

    @contextmanager
    def _alone(self) -> Iterator[BinaryIO]:
        """The file that is not whole, which nobody else writes meanwhile."""
        with os.fdopen(os.open(self._part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have finished it, and given it its name.
                is_it = os.path.samestat(os.fstat(file.fileno()), self._part.stat())
            except (BlockingIOError, FileNotFoundError):
                is_it = False
            if not is_it:
                raise ConfigError(f"{self._part}: another export writes it")
            yield file

    def _text(self, file: BinaryIO) -> Exported:
        progress = self._begun()
        file.truncate(progress.size)
        file.seek(progress.size)
        if not progress.size:
            file.write(packed_alone(head(self._wanted), self._packing))
        with closing(ranges(self._database, self._wanted, progress.after, progress.last)) as parts:
            for part in parts:
                file.write(packed_alone(part.text, self._packing) if part.items else b"")
                progress.after, progress.items = part.until, progress.items + part.items
                file.flush()
                self._note(progress, file.fileno(), file.tell())
                self._tell(progress.items)
        file.flush()
        file.seek(0)
        sum_ = hashlib.sha256()
        text = unpacked(file, self._packing)
        while piece := text.read(_READ):
            sum_.update(piece)
        file.seek(0, os.SEEK_END)
        if self._wanted.format is Format.NDJSON:
            end = {"export_id": progress.export_id, "items": progress.items, "sha256": sum_.hexdigest()}
            file.write(packed_alone(msgspec.json.encode({**end, "complete": True}) + b"\n", self._packing))
        file.flush()
        return Exported(progress.items, sum_.hexdigest())

    def _begun(self) -> Progress:
        """How far an earlier one came, if it was asked for the same and is still there."""
        asked = repr((self._wanted, self._path.name, shown(self._wanted), self._database.read(origin)))
        try:
            known = msgspec.json.decode(self._noted.read_bytes(), type=Progress)
            if known.asked == asked and self._part.stat().st_size >= known.size:
                return known
        except (FileNotFoundError, msgspec.MsgspecError):
            pass
        return Progress(asked, str(uuid4()), self._database.read(last_id))

    def _note(self, progress: Progress, descriptor: int, size: int) -> None:
        """First the text, then how far it is: never the other way."""
        progress.size = size
        os.fsync(descriptor)
        new = self._noted.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(progress))
        new.replace(self._noted)

    def _parquet(self, file: BinaryIO) -> Exported:
        self._noted.unlink(missing_ok=True)
        file.truncate(0)
        items, sum_ = 0, hashlib.sha256()
        with closing(ranges(self._database, self._wanted, 0, self._database.read(last_id))) as parts:
            for piece, count in parquet(parts, self._wanted.columns):
                sum_.update(piece)
                file.write(piece)
                items += count
                self._tell(items)
        file.flush()
        return Exported(items, sum_.hexdigest())


def format_of(path: Path) -> Format | None:
    """The format that a file of this name has; None where it does not tell."""
    name = path.with_suffix("").name if packing_of(path) else path.name
    return next((one for one in Format if Path(name).suffix == f".{one}"), None)
