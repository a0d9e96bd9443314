"""What the libraries raise as our errors, without the queries of addresses, which may hold secrets."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, TypeVar

import requests
import urllib3

from etl.errors import ETLError, FetchError, NoAnswerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


def translated(shown: str, started: float, work: Callable[[], T]) -> T:
    """Say where an error happened, and turn what the libraries raise into our errors, without the address's query."""
    try:
        return work()
    except ETLError as error:
        raise error.within(shown) from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, ValueError) as error:
        raise RefusedError(f"{shown}: not an address that can be fetched", code="bad_url") from error
    except requests.exceptions.SSLError as error:
        if isinstance(_root(error), ssl.SSLCertVerificationError):
            raise RefusedError(f"{shown}: the TLS certificate is not valid", code="bad_certificate") from error
        raise NoAnswerError(f"{shown}: TLS failed", code="tls_failed") from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        took = time.monotonic() - started
        raise NoAnswerError(f"{shown}: no answer within {took:.1f} s") from error
    except urllib3.exceptions.IncompleteRead as error:
        raise FetchError(f"{shown}: the body was cut short", code="truncated") from error
    except _NETWORK_ERRORS as error:
        raise NoAnswerError(f"{shown}: {_reason(error)}", code="connection_failed") from error


def _root(error: BaseException) -> BaseException:
    """What an error began with."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error


def _reason(error: BaseException) -> str:
    """A short reason; the libraries' own texts carry whole addresses."""
    root = _root(error)
    return root.strerror or type(root).__name__ if isinstance(root, OSError) else type(root).__name__
