"""When people are told of what is wrong: once for a cause, once when it is over, and seldom beside that."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest

from etl.alerts.cause import Cause, Kind, Member, Patience, cause_of_failure
from etl.alerts.destination import Destination, chosen, parse_destinations
from etl.alerts.incident import Event
from etl.alerts.ledger import Ledger, Mutes, Notice, Sighting
from etl.alerts.message import compose, digest

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOST = Cause(Kind.HOST, "api.example.com")
WRONG = Cause(Kind.FAILING, "aaaa")
OTHER = Cause(Kind.FAILING, "bbbb")


class Story:
    """A ledger and what was told by it, by minutes after noon."""

    def __init__(self, mutes: Mutes | None = None) -> None:
        numbers = count(1)
        self.ledger = Ledger([], [], mutes or Mutes(), timedelta(hours=24), lambda: UUID(int=next(numbers)))
        self.told: list[tuple[float, Event, str]] = []
        self.notices: list[Notice] = []

    def ends(self, minute: float, source: str = "a", failed_of: Cause | None = None, **more: object) -> None:
        """A run ends."""
        seen_at = NOON + timedelta(minutes=minute)
        sighting = replace(Sighting(source, seen_at, failed_of, "it said no"), **more)  # type: ignore[arg-type]
        self._tell(minute, self.ledger.see(sighting))

    def stands(self, minute: float, *members: Member, kinds: tuple[Kind, ...] = (Kind.LATE,)) -> None:
        """A look at what stands."""
        self.ledger.hold(kinds, members)
        self.passes(minute)

    def passes(self, minute: float) -> None:
        """Time passes."""
        self._tell(minute, self.ledger.judge(NOON + timedelta(minutes=minute)))

    def _tell(self, minute: float, notices: list[Notice]) -> None:
        self.notices += notices
        self.told += [(minute, notice.event, notice.incident.cause.key) for notice in notices]


def late(source: str, minute: float = 0, **more: object) -> Member:
    since = NOON + timedelta(minutes=minute)
    member = Member(Cause(Kind.LATE, source), source, since, since, "not read", source=source)
    return replace(member, **more)  # type: ignore[arg-type]


def part(kind: Kind, minute: float = 0) -> Member:
    since = NOON + timedelta(minutes=minute)
    return Member(Cause(kind), str(kind), since, since, "it is so")


def test_a_failure_is_told_of_once_and_so_is_its_end() -> None:
    story = Story()
    for minute in range(10):
        story.ends(minute, failed_of=WRONG)
        story.passes(minute + 0.5)
    story.ends(10)
    story.passes(300)
    assert story.told == [(0, Event.FIRING, "failing:aaaa"), (10, Event.RECOVERED, "failing:aaaa")]


def test_what_fails_of_something_else_each_time_is_told_of_once() -> None:
    story = Story()
    for minute in range(10):
        story.ends(minute, failed_of=Cause(Kind.FAILING, f"reason{minute}"))
    story.ends(10)
    assert [event for _, event, _ in story.told] == [Event.FIRING, Event.RECOVERED]


def test_a_host_is_told_of_once_however_many_sources_it_has() -> None:
    story = Story()
    for number in range(200):
        story.ends(number / 10, f"s{number}", failed_of=HOST)
    for number in range(200):
        story.ends(30 + number / 10, f"s{number}")
    assert [(event, cause) for _, event, cause in story.told] == [
        (Event.FIRING, "host:api.example.com"),
        (Event.RECOVERED, "host:api.example.com"),
    ]
    assert story.told[-1][0] == 30 + 19.9
    assert story.notices[-1].incident.affected == 200
    assert compose(story.notices[-1:], NOON, lambda: UUID(int=1))[0].title == (
        "Over: 200 sources cannot be read from api.example.com"
    )


def test_a_host_that_answers_is_not_to_blame_for_what_is_refused_afterwards() -> None:
    story = Story()
    story.ends(0, failed_of=HOST)
    story.ends(1, failed_of=WRONG)
    story.ends(2, failed_of=HOST)
    story.ends(3, failed_of=OTHER)
    story.ends(4)
    assert story.told == [
        (0, Event.FIRING, "host:api.example.com"),
        (1, Event.FIRING, "failing:aaaa"),
        (1, Event.RECOVERED, "host:api.example.com"),
        (4, Event.RECOVERED, "failing:aaaa"),
    ]


def test_flapping_is_said_once() -> None:
    story = Story()
    for turn in range(20):
        story.ends(turn * 3, failed_of=WRONG)
        story.passes(turn * 3 + 1)
        story.ends(turn * 3 + 1.5)
        story.passes(turn * 3 + 2)
    assert [event for _, event, _ in story.told] == [Event.FIRING, Event.RECOVERED, Event.FLAPPING]
    story.passes(58.5 + 59)
    assert len(story.told) == 3
    story.passes(58.5 + 61)
    assert story.told[3:] == [(58.5 + 61, Event.RECOVERED, "failing:aaaa")]


def test_what_flapped_and_fails_for_an_hour_is_told_of_again() -> None:
    story = Story()
    story.ends(0, failed_of=WRONG)
    story.ends(1)
    for minute in range(2, 70):
        story.ends(minute, failed_of=WRONG)
    story.ends(70)
    events = [(minute, event) for minute, event, _ in story.told]
    assert events == [
        (0, Event.FIRING),
        (1, Event.RECOVERED),
        (2, Event.FLAPPING),
        (62, Event.FIRING),
        (70, Event.RECOVERED),
    ]


def test_what_fails_a_day_later_is_no_flapping() -> None:
    story = Story()
    for day in range(3):
        story.ends(day * 1440, failed_of=WRONG)
        story.ends(day * 1440 + 5)
        story.passes(day * 1440 + 700)
    assert [event for _, event, _ in story.told] == [Event.FIRING, Event.RECOVERED] * 3
    assert not story.ledger.incidents


def test_what_stands_is_told_of_once_a_day() -> None:
    story = Story()
    for hour in range(49):
        story.ends(hour * 60, failed_of=WRONG)
    assert story.told == [
        (0, Event.FIRING, "failing:aaaa"),
        (1440, Event.REMINDER, "failing:aaaa"),
        (2880, Event.REMINDER, "failing:aaaa"),
    ]


def test_a_cause_that_grows_later_is_told_of_again() -> None:
    story = Story()
    story.ends(0, "a", failed_of=WRONG)
    story.ends(59, "b", failed_of=WRONG)
    assert len(story.told) == 1
    story.passes(60)
    story.ends(119, "c", failed_of=WRONG)
    story.passes(125)
    story.ends(126, "d", failed_of=WRONG)
    assert [(minute, event) for minute, event, _ in story.told] == [
        (0, Event.FIRING),
        (60, Event.GROWN),
        (125, Event.GROWN),
    ]


def test_a_host_that_is_down_does_not_grow() -> None:
    """Ever more of its sources fail, as their turn comes."""
    story = Story()
    for minute in range(200):
        story.ends(minute, str(minute), failed_of=HOST)
    for minute in range(200):
        story.ends(200 + minute, str(minute))
    assert [(minute, event) for minute, event, _ in story.told] == [(0, Event.FIRING), (399, Event.RECOVERED)]


def test_what_is_told_of_after_a_look_is_not_judged_as_before_it() -> None:
    """A run that ended before: by then the breaker had not been seen open."""
    story = Story()
    story.ends(0, failed_of=HOST)
    breaker = Member(HOST, ":breaker", NOON + timedelta(minutes=2), NOON + timedelta(minutes=2), "not asked")
    story.stands(2, breaker, kinds=(Kind.HOST,))
    story.ends(1.5)
    story.stands(3, breaker, kinds=(Kind.HOST,))
    assert [event for _, event, _ in story.told] == [Event.FIRING]


def test_a_clock_that_is_set_back_a_little_ends_nothing() -> None:
    story = Story()
    story.ends(10, failed_of=WRONG)
    story.passes(9.2)
    story.passes(9.4)
    assert [event for _, event, _ in story.told] == [Event.FIRING]


@pytest.mark.parametrize("together", [False, True])
def test_who_heard_of_a_beginning_hears_of_its_end(together: bool) -> None:
    """What one source would tell to all, since nobody takes its tags, goes to all though another has some."""
    money, ops = (Destination(f"json://{name}", "json", frozenset({name})) for name in ("money", "ops"))
    story = Story()
    for minute, (source, tags) in enumerate((("a", ()), ("b", ("money",)), ("c", ("money", "art")))):
        story.ends(0 if together else minute, source, failed_of=HOST, tags=tags)
    for minute, source in enumerate("abc", 10):
        story.ends(minute, source)
    heard = [
        (alert.event, chosen((money, ops), alert.audiences, alert.told))
        for notice in story.notices
        for alert in compose([notice], NOON, lambda: UUID(int=1))
    ]
    assert [one for one in heard if one[1]] == [(Event.FIRING, [money, ops]), (Event.RECOVERED, [money, ops])]


def test_many_at_once_are_told_to_all_who_hear_of_one() -> None:
    money, ops = (Destination(f"json://{name}", "json", frozenset({name})) for name in ("money", "ops"))
    story = Story()
    story.stands(0, *(late(f"s{n}", tags=("money",) if n == 3 else ()) for n in range(7)))
    (alert,) = compose(story.notices, NOON, lambda: UUID(int=1))
    assert chosen((money, ops), alert.audiences, alert.told) == [money, ops]


@pytest.mark.parametrize(
    ("declared", "told"),
    [(3, [2]), ("2h", [120]), (1, [0]), (None, [0]), ("90m", [90]), (1000, [])],
)
def test_patience(declared: int | str | None, told: list[float]) -> None:
    story = Story()
    for minute in (0, 1, 2):
        story.ends(minute, failed_of=WRONG, patience=Patience.declared(declared))
    for minute in range(3, 200):
        story.passes(minute)
    assert [minute for minute, _, _ in story.told] == told


def test_what_recovers_before_anybody_was_told_is_not_told_of() -> None:
    story = Story()
    for minute in range(2):
        story.ends(minute, failed_of=WRONG, patience=Patience(runs=3))
    story.ends(2)
    story.passes(500)
    assert story.told == []


def test_the_runs_in_a_row_begin_anew_after_one_that_went_well() -> None:
    story = Story()
    for minute in range(12):
        story.ends(minute, failed_of=None if minute % 3 == 2 else WRONG, patience=Patience(runs=3))
    assert story.told == []


def test_an_empty_run_and_an_odd_one_are_causes_of_their_own() -> None:
    story = Story()
    story.ends(0, size=Kind.EMPTY)
    story.ends(1, size=Kind.EMPTY)
    story.ends(2, size=Kind.ODD_SIZE)
    story.ends(3)
    assert story.told == [
        (0, Event.FIRING, "empty:a"),
        (2, Event.RECOVERED, "empty:a"),
        (2, Event.FIRING, "odd_size:a"),
        (3, Event.RECOVERED, "odd_size:a"),
    ]


def test_what_follows_from_another_cause_is_not_told_of() -> None:
    story = Story()
    story.ends(0, failed_of=WRONG)
    story.stands(90, late("a"))
    assert len(story.told) == 1
    story.ends(91)
    story.stands(92)
    assert [event for _, event, _ in story.told] == [Event.FIRING, Event.RECOVERED]


def test_what_was_told_of_before_it_was_explained_is_not_over_by_that() -> None:
    story = Story()
    story.stands(0, late("a"))
    story.ends(1, failed_of=WRONG)
    story.stands(2, late("a"))
    assert [(event, cause) for _, event, cause in story.told] == [
        (Event.FIRING, "late:a"),
        (Event.FIRING, "failing:aaaa"),
    ]


def test_nothing_is_late_for_itself_while_no_worker_is_alive() -> None:
    story = Story()
    names = [f"s{number}" for number in range(50)]
    story.stands(0, part(Kind.WORKERS), kinds=(Kind.WORKERS,))
    story.stands(30, *map(late, names))
    assert story.told == [(0, Event.FIRING, "no_worker")]
    story.stands(40, kinds=(Kind.WORKERS,))
    assert [cause for _, event, cause in story.told if event is Event.RECOVERED] == ["no_worker"]
    story.stands(41, *map(late, names[:6]))
    alerts = compose(story.notices[-6:], NOON, lambda: UUID(int=9))
    assert [alert.title for alert in alerts] == ["6 sources are late"] or len(story.notices) > 50


def test_many_of_a_kind_are_one_message() -> None:
    story = Story()
    story.stands(0, *(late(f"s{number}", tags=("t",)) for number in range(6)))
    alerts = compose(story.notices, NOON, lambda: UUID(int=9))
    assert [(alert.title, alert.audiences) for alert in alerts] == [("6 sources are late", ("t",))]
    assert alerts[0].facts["sources"] == [f"s{number}" for number in range(6)]
    story.stands(5)
    assert [alert.title for alert in compose(story.notices[6:], NOON, lambda: UUID(int=9))] == [
        "Over: 6 sources are late"
    ]


def test_a_few_of_a_kind_are_a_message_each() -> None:
    story = Story()
    story.stands(0, *(late(f"s{number}") for number in range(5)))
    assert [alert.title for alert in compose(story.notices, NOON, lambda: UUID(int=9))] == [
        f"s{number} is late" for number in range(5)
    ]


@pytest.mark.parametrize(
    "mutes",
    [
        Mutes(all=True),
        Mutes(causes=frozenset({"failing:aaaa"})),
        Mutes(sources=frozenset({"a"})),
        Mutes(tags=frozenset({"money"})),
    ],
)
def test_what_is_muted_is_told_of_when_the_mute_ends_if_it_stands(mutes: Mutes) -> None:
    story = Story(mutes)
    story.ends(0, failed_of=WRONG, tags=("money",))
    story.passes(1)
    assert story.told == []
    later = Ledger(
        story.ledger.members.values(),
        story.ledger.incidents.values(),
        Mutes(),
        timedelta(hours=24),
        lambda: UUID(int=1),
    )
    assert [notice.event for notice in later.judge(NOON + timedelta(minutes=2))] == [Event.FIRING]


@pytest.mark.parametrize("mutes", [Mutes(all=True), Mutes(sources=frozenset({"a"})), Mutes(tags=frozenset({"money"}))])
def test_what_ends_while_it_is_muted_is_told_of_afterwards(mutes: Mutes) -> None:
    story = Story()
    story.ends(0, failed_of=WRONG, tags=("money",))
    muted = Ledger(
        story.ledger.members.values(), story.ledger.incidents.values(), mutes, timedelta(hours=24), lambda: UUID(int=1)
    )
    assert muted.see(Sighting("a", NOON + timedelta(minutes=5))) == []
    later = Ledger(muted.members.values(), muted.incidents.values(), Mutes(), timedelta(hours=24), lambda: UUID(int=1))
    assert [notice.event for notice in later.judge(NOON + timedelta(minutes=9))] == [Event.RECOVERED]


def test_a_source_that_nobody_reads_concerns_nobody() -> None:
    story = Story()
    story.ends(0, failed_of=WRONG)
    story.ledger.leave_out(["a", "never_heard_of"])
    story.passes(1)
    assert [event for _, event, _ in story.told] == [Event.FIRING, Event.RECOVERED]


def test_an_open_breaker_belongs_to_what_is_told_of_its_host() -> None:
    story = Story()
    story.ends(0, failed_of=HOST)
    breaker = Member(HOST, "breaker", NOON, NOON, "it is not asked")
    story.stands(1, breaker, kinds=(Kind.HOST,))
    story.ends(2)
    assert len(story.told) == 1
    story.stands(3, kinds=(Kind.HOST,))
    assert [event for _, event, _ in story.told] == [Event.FIRING, Event.RECOVERED]


def test_a_breaker_alone_is_told_of_by_the_name_of_its_host() -> None:
    story = Story()
    story.stands(1, Member(HOST, "breaker", NOON, NOON, "it is not asked"), kinds=(Kind.HOST,))
    assert [alert.title for alert in compose(story.notices, NOON, lambda: UUID(int=9))] == [
        "api.example.com does not answer"
    ]


def test_the_disks_of_two_machines_are_two_causes() -> None:
    story = Story()
    disks = {host: replace(part(Kind.DISK), cause=Cause(Kind.DISK, host), name=host) for host in ("one", "two")}
    for host, disk in disks.items():
        story.ledger.hold({Kind.DISK}, [disk], host)
        story.passes(0)
    story.ledger.hold({Kind.DISK}, [], "one")
    story.passes(1)
    assert story.told == [
        (0, Event.FIRING, "disk_full:one"),
        (0, Event.FIRING, "disk_full:two"),
        (1, Event.RECOVERED, "disk_full:one"),
    ]


@pytest.mark.parametrize(
    ("code", "message", "declared", "cause"),
    [
        ("timeout", "https://api.example.com/a: no answer within 30.0 s", "other.example", HOST),
        ("connection_failed", "http://api.example.com:8080/: refused", None, Cause(Kind.HOST, "api.example.com:8080")),
        ("dns_failed", "cannot resolve it", "api.example.com", HOST),
        ("http_503", "https://api.example.com/a: answered 503", None, HOST),
        ("breaker_open", "api.example.com: not asked for another 9 s", "api.example.com", HOST),
        ("http_404", "https://api.example.com/a: answered 404", "api.example.com", WRONG),
        ("http_429", "https://api.example.com/a: answered 429", "api.example.com", WRONG),
        ("timeout", "nobody knows where", None, WRONG),
        ("bad_format", "https://api.example.com/a: no JSON", "api.example.com", WRONG),
        ("timeout", "http://[bad: no answer", "api.example.com", HOST),
    ],
)
def test_what_a_failure_is_a_sign_of(code: str, message: str, declared: str | None, cause: Cause) -> None:
    assert cause_of_failure(code, message, "aaaa", declared) == cause


def test_keys_of_causes_are_read_back() -> None:
    for cause in (HOST, WRONG, Cause(Kind.HOST, "host.example:8080"), Cause(Kind.WORKERS)):
        assert Cause.of_key(cause.key) == cause


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_messages_alternate_and_are_few(seed: int) -> None:
    """Whatever the order, nothing ends that was not told of, and no hour brings more than three messages."""
    rng = random.Random(seed)
    story = Story()
    causes = [HOST, WRONG, OTHER, None, None]
    for minute in range(0, 600, 2):
        story.ends(minute, rng.choice("abc"), failed_of=rng.choice(causes))
        story.passes(minute + 1)
    for cause in {cause for _, _, cause in story.told}:
        events = [(minute, event) for minute, event, one in story.told if one == cause]
        stands = False
        for _, event in events:
            assert (event is Event.RECOVERED) <= stands
            stands = event is not Event.RECOVERED
        for first, _ in events:
            assert sum(first <= minute < first + 60 for minute, _ in events) <= 3


def test_a_digest_holds_all_titles() -> None:
    assert digest([("one", "text")]) == ("one", "text")
    title, text = digest([(f"title {number}", "x" * 5000) for number in range(50)])
    assert title == "50 alerts: title 0, …"
    assert all(f"title {number}\n" in text for number in range(50))
    assert len(text) < 4200


def seen(minute: float, source: str, failed_of: Cause | None = None, **more: object) -> Sighting:
    sighting = Sighting(source, NOON + timedelta(minutes=minute), failed_of, f"{source} said no")
    return replace(sighting, **more)  # type: ignore[arg-type]


def titles(notices: list[Notice]) -> list[str]:
    numbers = count(1)
    return [alert.title for alert in compose(notices, NOON, lambda: UUID(int=next(numbers)))]


def test_what_is_noticed_together_is_told_as_it_is_after_the_last_of_it() -> None:
    story = Story()
    notices = story.ledger.see_all(
        [seen(n / 100, f"s{n}", HOST, tags=("money",) if n > 99 else ()) for n in range(200)]
    )
    [alert] = compose(notices, NOON, lambda: UUID(int=1))
    assert alert.title == "200 sources cannot be read from api.example.com"
    assert (alert.facts["sources_total"], alert.audiences) == (200, ("", "money"))
    assert story.ledger.incidents[HOST].told_members == 200


def test_what_fails_and_recovers_between_two_looks_is_both() -> None:
    story = Story()
    notices = story.ledger.see_all([seen(0, "a", WRONG), seen(1, "a"), seen(2, "a", WRONG)])
    assert [notice.event for notice in notices] == [Event.FIRING, Event.RECOVERED, Event.FLAPPING]
    assert titles(notices) == ["a fails", "Over: a fails", "On and off: a fails"]


def test_an_end_and_a_beginning_come_in_their_order() -> None:
    story = Story()
    story.ends(0, "a", failed_of=HOST)
    notices = story.ledger.see_all([seen(300, "a"), seen(301, "b", HOST)])
    assert titles(notices) == ["Over: a cannot be read from api.example.com", "b cannot be read from api.example.com"]


def test_who_hears_of_another_tag_alone_is_told_when_a_source_of_it_joins() -> None:
    story = Story()
    story.ends(0, "a", failed_of=HOST, tags=("ops",))
    [notice] = story.ledger.see_all([seen(1, "b", HOST, tags=("money",))])
    assert (notice.event, notice.told) == (Event.FIRING, frozenset({"ops"}))
    assert notice.incident.audiences == ("money", "ops")
    assert story.ledger.see_all([seen(2, "c", HOST, tags=("money",))]) == []
    every, money = parse_destinations("https://ops/ money=https://m/", ())
    [alert] = compose([notice], NOON, lambda: UUID(int=1))
    assert chosen((every, money), alert.audiences, alert.told) == [money]
    assert chosen((every,), alert.audiences, alert.told) == []


def test_an_end_that_was_muted_hides_no_other_beginning() -> None:
    story = Story()
    story.ends(0, "m", failed_of=HOST, tags=("money",))
    muted = Ledger(
        story.ledger.members.values(),
        story.ledger.incidents.values(),
        Mutes(tags=frozenset({"money"})),
        timedelta(hours=24),
        lambda: UUID(int=1),
    )
    assert muted.see(seen(10, "m")) == []
    notices = muted.see(seen(20, "o", HOST, tags=("ops",)))
    assert titles(notices) == ["o cannot be read from api.example.com"]


def test_a_mute_of_some_does_not_hide_the_end_for_the_others() -> None:
    story = Story()
    story.ledger.see_all([seen(0, "m", HOST, tags=("money",)), seen(0, "o", HOST, tags=("ops",))])
    muted = Ledger(
        story.ledger.members.values(),
        story.ledger.incidents.values(),
        Mutes(tags=frozenset({"money"})),
        timedelta(hours=24),
        lambda: UUID(int=1),
    )
    assert [notice.event for notice in muted.see_all([seen(10, "m"), seen(11, "o")])] == [Event.RECOVERED]


def test_a_reminder_says_how_many_there_are_now() -> None:
    story = Story()
    story.ledger.see_all([seen(0, f"s{n}", HOST) for n in range(200)])
    story.ledger.see_all([seen(10, f"s{n}") for n in range(199)])
    assert titles(story.ledger.judge(NOON + timedelta(hours=25))) == ["Still: s199 cannot be read from api.example.com"]


def test_what_is_muted_is_not_counted() -> None:
    story = Story(Mutes(sources=frozenset({"a"})))
    notices = story.ledger.see_all([seen(0, "a", HOST), seen(0, "b", HOST)])
    assert titles(notices) == ["b cannot be read from api.example.com"]


def test_nothing_is_late_while_no_worker_may_be_alive() -> None:
    story = Story()
    story.ledger.hold((Kind.WORKERS,), [replace(part(Kind.WORKERS), due_at=NOON + timedelta(minutes=1))])
    story.stands(0.8, late("a"))
    assert story.told == []


def test_a_breaker_neither_grows_a_cause_nor_speaks_before_its_sources_may() -> None:
    breaker = Member(HOST, ":breaker", NOON, NOON, "it is not asked")
    story = Story()
    story.ends(0, failed_of=HOST)
    for minute in (1, 61, 122):
        story.stands(minute, breaker, kinds=(Kind.HOST,))
    assert [event for _, event, _ in story.told] == [Event.FIRING]
    patient = Story()
    patient.ends(0, failed_of=HOST, patience=Patience.declared("2h"))
    patient.stands(1, breaker, kinds=(Kind.HOST,))
    assert patient.told == []
    patient.stands(121, breaker, kinds=(Kind.HOST,))
    assert [event for _, event, _ in patient.told] == [Event.FIRING]


def test_many_sightings_of_one_host_are_judged_quickly() -> None:
    since = NOON - timedelta(hours=1)
    members = [Member(HOST, f"s{n}", since, since, "no", source=f"s{n}") for n in range(10_000)]
    ledger = Ledger(members, [], Mutes(), timedelta(hours=24), lambda: UUID(int=1))
    ledger.judge(since)
    looks = 0

    def counting(cause: Cause, now: datetime) -> list[Member]:
        nonlocal looks
        looks += 1
        return original(cause, now)

    original = ledger._due
    ledger._due = counting  # type: ignore[method-assign]
    assert ledger.see_all([seen(n / 1000, f"s{n}", HOST) for n in range(500)]) == []
    # All of them are looked through a few times, not once for each run.
    assert looks < 5
