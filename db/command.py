"""A command that a person gave: it succeeds, or one line says why it did not."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy.exc import DBAPIError, OperationalError

from config import settings
from etl.errors import ETLError

if TYPE_CHECKING:
    from collections.abc import Callable


def exit_code(work: Callable[[], object]) -> int:
    """Do it: 0 on success, 1 when it failed, 2 when a setting is wrong."""
    try:
        work()
    except BrokenPipeError:
        # Whoever read it has seen enough; nothing more is to be written, at the end of the process either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except settings.SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ETLError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    except OperationalError as error:
        print(f"error: the database cannot be reached: {str(error.orig).strip()}", file=sys.stderr)
        return 1
    except (DBAPIError, psycopg2.Error) as error:
        print(f"error: the database refused: {str(getattr(error, 'orig', error)).strip()}", file=sys.stderr)
        return 1
    return 0
