"""Few slow questions at a time."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from threading import Event, Thread

import pytest

from etl.errors import TooSlowError
from web.lane import Lane


def test_who_waits_too_long_is_turned_away() -> None:
    lane = Lane(2, 1, timedelta(seconds=0.05))
    with ExitStack() as stack:
        stack.enter_context(lane.enter())
        stack.enter_context(lane.enter())
        with pytest.raises(TooSlowError):
            stack.enter_context(lane.enter())
    with lane.enter():
        pass


def test_too_many_do_not_even_wait() -> None:
    lane = Lane(1, 0, timedelta(hours=1))
    with lane.enter(), pytest.raises(TooSlowError), lane.enter():
        pass


def test_who_waits_has_the_next_turn() -> None:
    lane, had = Lane(1, 1, timedelta(seconds=30)), Event()

    def wait() -> None:
        with lane.enter():
            had.set()

    with lane.enter():
        thread = Thread(target=wait)
        thread.start()
        assert not had.wait(0.05)
    assert had.wait(10)
    thread.join()
