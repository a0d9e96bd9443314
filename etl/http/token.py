"""OAuth2 client credentials: one token per grant and process, renewed before it expires."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Any

from etl import payload
from etl.errors import FormatError, RefusedError
from etl.http.attempt import Attempt, into
from etl.http.limit import TimeLimit
from etl.http.target import Grant, PreparedRequest, basic
from etl.secrets import ISSUED, learn

if TYPE_CHECKING:
    from etl.http.call import Caller

# A token is renewed this long before it expires, since it must outlive the call it is used for.
LEEWAY = 60.0
DEFAULT_LIFETIME = 300.0
_LIMIT = TimeLimit.total(15.0)
MAX_TOKEN_ANSWER = 256 * 1024

_lock = threading.Lock()
# A token by its grant, with the reading of the monotonic clock at which it is to be renewed. Never leaves the process.
_known: dict[Grant, tuple[str, float]] = {}


class Tokens:
    """Gets tokens by way of the same caller, so under the same guards, as everything else."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def sign(self, attempt: Attempt, tries: int) -> Attempt:
        """The attempt with a valid token; `tries` counts the calls that have failed so far.

        Raises:
            ETLError: there is none to be had.
        """
        grant = attempt.target.grant
        assert grant is not None
        # Held while asking, so that threads do not all ask at once.
        with _lock:
            token, renew_at = _known.get(grant, ("", 0.0))
            if time.monotonic() >= renew_at:
                token, renew_at = self._ask(grant, tries)
                _known[grant] = token, renew_at
        learn(ISSUED, token)
        return attempt.signed(f"Bearer {token}")

    @staticmethod
    def forget(grant: Grant) -> None:
        """The server does not take this token any more."""
        with _lock:
            _known.pop(grant, None)

    def _ask(self, grant: Grant, tries: int) -> tuple[str, float]:
        body = io.BytesIO()
        try:
            self._caller.call(Attempt(_target(grant), _LIMIT, into(body, MAX_TOKEN_ANSWER)), tries)
        except RefusedError as error:
            raise RefusedError(f"no access token: {error.message}", code="token_refused") from error
        answer = _decoded(grant, body.getvalue())
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise FormatError(f"{grant.shown}: the answer holds no access_token", code="token_refused")
        try:
            lifetime = float(answer.get("expires_in", DEFAULT_LIFETIME))
        except (TypeError, ValueError):
            lifetime = DEFAULT_LIFETIME
        return token, time.monotonic() + max(lifetime - LEEWAY, min(lifetime / 2, LEEWAY))


def _decoded(grant: Grant, body: bytes) -> Any:
    try:
        return payload.decode(body)
    except FormatError:
        # The error would quote the answer, which may hold a token.
        raise FormatError(f"{grant.shown}: the answer is not JSON", code="token_refused") from None


def _target(grant: Grant) -> PreparedRequest:
    form = [("grant_type", "client_credentials"), *grant.params]
    headers: dict[str, str] = {}
    if grant.in_body:
        form += [("client_id", grant.client_id), ("client_secret", grant.client_secret)]
    else:
        headers["Authorization"] = basic(grant.client_id, grant.client_secret)
    return PreparedRequest(
        url=grant.url,
        shown=grant.shown,
        headers={"Accept": "application/json"},
        secret_headers=headers,
        form=tuple(form),
    )
