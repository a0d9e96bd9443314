"""Ports for servers that are set up before any is started."""

from __future__ import annotations

import random

import pytest

from stack import ports


def test_none_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(random, "sample", lambda numbers, _: list(numbers))
    assert len({ports.free_port() for _ in range(5)}) == 5
