"""Sources as they are declared."""

from __future__ import annotations

import pytest

from etl.declare.source import fingerprint, parse
from etl.errors import ConfigError


def test_the_fingerprint_ignores_what_does_not_move_a_cursor() -> None:
    base = {"name": "a", "type": "api", "request": {"url": "http://x"}}
    assert fingerprint(parse(base)) == fingerprint(parse({**base, "timeout": "9s", "max_rejected": 1}))
    assert fingerprint(parse(base)) != fingerprint(parse({**base, "records": "data"}))


def test_a_source_document_may_not_hold_unknown_keys() -> None:
    with pytest.raises(ConfigError, match="`paginate.parm`"):
        parse({"name": "a", "type": "api", "request": {"url": "http://x"}, "paginate": {"style": "page", "parm": "p"}})
