"""How a slice begins and how it ends, by table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from msgspec import to_builtins

from etl.declare.source import fingerprint, parse
from etl.errors import (
    ConfigError,
    ETLError,
    FetchError,
    FormatError,
    NoAnswerError,
    Postponed,
    PostponedError,
    RateLimitError,
    RefusedError,
    ScratchError,
    SliceOverError,
    WaitError,
)
from etl.records import Checkpoint, Position
from etl.runs.outcome import Failure
from etl.runs.polling import ServerHints
from etl.runs.slices import (
    MAX_OPEN_BATCHES,
    MAX_RUN_ATTEMPTS,
    AskedToWait,
    Deadline,
    Died,
    Failed,
    Gone,
    NotMoved,
    Pause,
    RunClaim,
    Slowness,
    Yielded,
    after_batch,
    begin,
    cut_short,
    end_of,
)

SOURCE = {"name": "shop", "type": "api", "request": {"url": "http://x/"}}
CONFIG = fingerprint(parse(SOURCE))
MOVED = ServerHints("http://new/", 5)


def claim(**more: Any) -> RunClaim:
    made = RunClaim(
        run_id=UUID(int=1),
        source_name="shop",
        source_type="api",
        token=1,
        attempt=1,
        batches=0,
        open_batches=frozenset(),
        position=Position(),
        checkpoint={},
        config=SOURCE,
        mapping_version=3,
        mapped_since=3,
        hints=ServerHints(),
    )
    return replace(made, **more)


# --- after a batch


@pytest.mark.parametrize(
    ("finished", "open_batches", "now", "end"),
    [
        (False, 0, 0, None),
        (False, MAX_OPEN_BATCHES - 1, 10, None),
        (False, MAX_OPEN_BATCHES, 0, Yielded(Pause.ROOM)),
        (False, MAX_OPEN_BATCHES + 1, 0, Yielded(Pause.ROOM)),
        (False, 0, 10.1, Yielded(Pause.TIME)),
        (False, MAX_OPEN_BATCHES, 10.1, Yielded(Pause.ROOM)),
        # The last batch ends the source, and with it the slice.
        (True, 0, 0, None),
        (True, MAX_OPEN_BATCHES, 10.1, None),
    ],
)
def test_after_a_batch(finished: bool, open_batches: int, now: float, end: object) -> None:
    assert after_batch(Position(finished=finished), open_batches, Deadline(10, lambda: now)) == end


# --- after an error

NO_ANSWER = NoAnswerError("no answer within 5 s")
OVER = SliceOverError("it lasts longer")
REFUSED = RefusedError("HTTP 404", status=404)
GONE = RefusedError("HTTP 410", status=410)
BY_SERVER = PostponedError("asked to wait", by=Postponed.BY_SERVER, seconds=900)
SINCE = PostponedError("asked to wait", by=Postponed.SINCE_EARLIER, seconds=900)
BREAKER = PostponedError("its circuit is open", by=Postponed.BY_BREAKER, seconds=30)


@pytest.mark.parametrize(
    ("error", "at", "hint", "slowness"),
    [
        (FetchError("HTTP 503"), claim(), None, None),
        (FormatError("not JSON", code="bad_json"), claim(), None, None),
        (ConfigError("the secret A is not set", code="missing_secret"), claim(), None, None),
        (ScratchError("No space left"), claim(), None, None),
        (RateLimitError("HTTP 429"), claim(), None, None),
        (NO_ANSWER, claim(), None, Slowness.MISSED),
        (OVER, claim(), None, Slowness.LASTING),
        (BY_SERVER, claim(), AskedToWait(900), None),
        (SINCE, claim(), None, None),
        (BREAKER, claim(), None, None),
        (REFUSED, claim(), None, None),
        (GONE, claim(), Gone("HTTP 410"), None),
        # Only what the run asks for first says anything of the source as a whole.
        (GONE, claim(position=Position({"page": 2})), None, None),
        # Where the source has moved to for good, it is the new address that fails.
        (REFUSED, claim(hints=MOVED), NotMoved(), None),
        (GONE, claim(hints=MOVED), NotMoved(), None),
        (NO_ANSWER, claim(hints=MOVED), NotMoved(), Slowness.MISSED),
        (REFUSED, claim(hints=ServerHints("http://new/", 4)), None, None),
        # Someone who does not let us in does not say that the address is wrong.
        (BY_SERVER, claim(hints=MOVED), AskedToWait(900), None),
        (BREAKER, claim(hints=MOVED), None, None),
    ],
)
def test_an_error_ends_the_extraction(error: ETLError, at: RunClaim, hint: object, slowness: Slowness | None) -> None:
    assert end_of(error, at, 0) == Failed(Failure(error.code, error.message), hint, slowness)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "slowness"),
    [(FetchError("HTTP 503"), None), (NO_ANSWER, Slowness.MISSED), (OVER, Slowness.LASTING)],
)
def test_a_wait_gives_the_run_back_and_remembers_the_tries(cause: ETLError, slowness: Slowness | None) -> None:
    at = claim(position=Position({"page": 2}, done=7, tries=1))
    end = end_of(WaitError("wait", seconds=4.5, tries=3, cause=cause), at, 0)
    assert end == Yielded(Pause.WAIT, 4.5, Position({"page": 2}, done=7, tries=3), slowness=slowness)
    assert isinstance(end, Yielded)
    assert end.progressed, "a wait is no attempt that got nowhere"


def test_memory_that_runs_out_is_the_sources_doing() -> None:
    end = end_of(MemoryError(), claim(), 512 * 2**20)
    assert isinstance(end, Failed)
    assert (end.failure.code, end.hint) == ("out_of_memory", Died("it needed more than 512 MiB"))
    assert "512 MiB" in end.failure.message


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), ValueError("secret"), OSError(28, "full")])
def test_a_defect_of_ours_ends_the_run_without_its_details(error: Exception) -> None:
    end = end_of(error, claim(hints=MOVED), 0)
    assert end == Failed(Failure("internal_error", f"{type(error).__name__} in the extractor; the log has the details"))


@pytest.mark.parametrize(
    ("attempt", "progressed", "ends"),
    [
        (1, False, False),
        (MAX_RUN_ATTEMPTS - 1, False, False),
        (MAX_RUN_ATTEMPTS, False, True),
        (MAX_RUN_ATTEMPTS + 1, False, True),
        (MAX_RUN_ATTEMPTS, True, False),
    ],
)
def test_a_slice_that_takes_too_long_is_tried_again_a_few_times(attempt: int, progressed: bool, ends: bool) -> None:
    end = cut_short(attempt, progressed=progressed)
    if ends:
        assert isinstance(end, Failed)
        assert end.failure.code == "too_slow"
    else:
        assert end == Yielded(Pause.TIME, progressed=progressed)


# --- the beginning


def checkpoint(config: str = CONFIG, mapping: int = 3) -> Checkpoint:
    return Checkpoint(kind="watermark", config=config, mapping=mapping, watermark="2026-01-01")


@pytest.mark.parametrize(
    ("position", "before", "watermark", "is_outdated", "is_kept"),
    [
        # The first run ever, and the next one.
        (Position(), Checkpoint(), None, False, False),
        (Position(), checkpoint(), "2026-01-01", False, True),
        # Mapped differently by now: the watermark holds, what is unchanged has to be mapped anew.
        (Position(), checkpoint(mapping=2), "2026-01-01", False, False),
        # Declared differently by now.
        (Position(), checkpoint("other"), None, True, False),
        # A later slice goes on where the run is, whatever the checkpoint says.
        (Position({"page": 2}, config=CONFIG, watermark="w"), checkpoint(), "w", False, True),
        (Position({"page": 2}, config=CONFIG), checkpoint("other"), None, False, False),
        # Declared differently since the run began: from the start.
        (Position({"page": 2}, config="other", watermark="w"), checkpoint(), "2026-01-01", True, True),
        (Position({"page": 2}, config="other", watermark="w"), checkpoint("other"), None, True, False),
    ],
)
def test_where_a_slice_begins(
    position: Position, before: Checkpoint, watermark: str | None, is_outdated: bool, is_kept: bool
) -> None:
    start = begin(claim(position=position, checkpoint=to_builtins(before)))
    expected = position.cursor if position.config == CONFIG else None
    assert (start.position.cursor, start.position.watermark) == (expected, watermark)
    assert start.position.config == CONFIG
    assert start.is_outdated is is_outdated
    assert start.checkpoint == (before if is_kept else Checkpoint())


def test_a_run_that_begins_notes_the_mapping_that_it_begins_with() -> None:
    assert begin(claim()).position.mapping == 3
    going_on = claim(position=Position(config=CONFIG, mapping=2))
    assert begin(going_on).position.mapping == 2
