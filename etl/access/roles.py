"""What a caller may do: each role may all that the one before it may."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """`read`: look; `operate`: and run things; `admin`: and change what is run, and who may."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether who has this role may do what needs another."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER = list(Role)
