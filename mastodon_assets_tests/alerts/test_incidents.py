"""When incidents open and close, and what is due, on facts made by hand."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from mastodon_assets.alerts.incidents import (
    KINDS,
    Event,
    Incident,
    Problem,
    Reading,
    after_delivery,
    after_sending,
    decide,
    due_event,
)
from mastodon_assets.alerts.messages import line

_NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_CLEAR = 5 * _MINUTE
_DAY = timedelta(days=1)
_REFUSED = Problem("token_refused a", "token_refused", "a: the server refuses the token")
_FAILED = Problem("run_failed refresh_job", "run_failed", "the last run of refresh_job failed")
_OPEN = Incident(_REFUSED.fact, _REFUSED.kind, _REFUSED.what, _NOW, opened_at=_NOW)


def _after(
    incidents: Sequence[Incident], *problems: Problem, at: datetime, unread: Sequence[str] = ()
) -> list[Incident]:
    """The incidents after one decision."""
    changes = decide(incidents, Reading(problems, frozenset(unread)), at, clear_after=_CLEAR)
    left = {(each.fact, each.since): each for each in incidents}
    left |= {(each.fact, each.since): each for each in changes.saved}
    for each in changes.forgotten:
        del left[each.fact, each.since]
    return list(left.values())


def test_what_was_waited_for_opens_at_once_and_what_may_pass_only_when_it_lasts() -> None:
    incidents = _after([], _REFUSED, _FAILED, at=_NOW)
    assert [each.is_open for each in incidents] == [True, False]
    incidents = _after(incidents, _REFUSED, _FAILED, at=_NOW + KINDS["run_failed"])
    assert [each.opened_at for each in incidents] == [_NOW, _NOW + 2 * _MINUTE]


def test_what_passed_before_it_opened_is_forgotten() -> None:
    incidents = _after([], _FAILED, at=_NOW)
    incidents = _after(incidents, at=_NOW + _MINUTE)
    assert len(incidents) == 1
    assert _after(incidents, at=_NOW + _MINUTE + _CLEAR) == []


def test_a_problem_that_comes_and_goes_is_one_incident() -> None:
    incidents: list[Incident] = []
    for minute in range(60):
        problems = [_FAILED] if minute % 3 == 0 else []
        incidents = _after(incidents, *problems, at=_NOW + minute * _MINUTE)
        assert len(incidents) == 1
    assert incidents[0].is_open
    assert incidents[0].since == _NOW


def test_an_incident_closes_when_its_problem_is_absent_long_enough() -> None:
    (absent,) = _after([_OPEN], at=_NOW + _MINUTE)
    assert (absent.is_open, absent.absent_since) == (True, _NOW + _MINUTE)
    (closed,) = _after([absent], at=_NOW + _MINUTE + _CLEAR)
    assert closed.closed_at == _NOW + _MINUTE + _CLEAR
    (_, again) = _after([closed], _REFUSED, at=_NOW + 10 * _MINUTE)
    assert (again.since, again.is_open) == (_NOW + 10 * _MINUTE, True)


def test_what_cannot_be_read_neither_opens_nor_closes() -> None:
    assert _after([_OPEN], at=_NOW + _DAY, unread=["token_refused"]) == [_OPEN]


def test_the_text_is_the_newest_and_nothing_changes_without_news() -> None:
    (newer,) = _after([_OPEN], replace(_REFUSED, what="newer"), at=_NOW)
    assert newer.what == "newer"
    assert decide([_OPEN], Reading((_REFUSED,)), _NOW, clear_after=_CLEAR).saved == []


def _due(incident: Incident, at: datetime, destination: str = "file") -> Event | None:
    return due_event(incident, destination, at, remind_after=_DAY)


def test_start_reminders_and_end_are_due_in_their_order() -> None:
    assert _due(replace(_OPEN, opened_at=None), _NOW) is None
    assert _due(_OPEN, _NOW) == "opened"
    told = after_delivery(_OPEN, "opened", "file", _NOW)
    assert (told.told_at, _due(told, _NOW + _DAY - _MINUTE)) == (_NOW, None)
    assert _due(told, _NOW + _DAY) == "reminder"
    reminded = after_delivery(told, "reminder", "file", _NOW + _DAY)
    assert (reminded.told_at, reminded.reminded_at) == (_NOW, _NOW + _DAY)
    assert _due(reminded, _NOW + _DAY + _MINUTE) is None
    closed = replace(reminded, closed_at=_NOW + 2 * _DAY)
    assert _due(closed, _NOW + 2 * _DAY) == "closed"
    done = after_delivery(closed, "closed", "file", _NOW + 2 * _DAY)
    assert _due(done, _NOW + 9 * _DAY) is None


def test_an_incident_that_was_over_before_it_could_be_told_is_still_told_from_start_to_end() -> (
    None
):
    closed = replace(_OPEN, closed_at=_NOW + _MINUTE)
    assert _due(closed, _NOW + _DAY) == "opened"
    assert _due(after_delivery(closed, "opened", "file", _NOW + _DAY), _NOW + _DAY) == "closed"


def test_a_destination_that_is_away_keeps_no_message_from_the_others() -> None:
    told = after_delivery(_OPEN, "opened", "file", _NOW)
    assert (_due(told, _NOW), _due(told, _NOW, "webhook")) == (None, "opened")
    closed = replace(told, closed_at=_NOW + _MINUTE)
    assert (_due(closed, _NOW), _due(closed, _NOW, "webhook")) == ("closed", "opened")
    done = after_delivery(closed, "closed", "file", _NOW)
    assert after_sending(done, ["file", "webhook"], _NOW).settled_at is None
    assert after_sending(done, ["file"], _NOW).settled_at == _NOW


def test_what_was_over_while_nobody_listened_is_never_told() -> None:
    closed = after_sending(replace(_OPEN, closed_at=_NOW), [], _NOW)
    assert closed.settled_at == _NOW
    assert _due(closed, _NOW) is None


def test_a_line_says_what_since_when_and_for_how_long() -> None:
    assert line(_OPEN, "opened") == (
        "PROBLEM: a: the server refuses the token (since 2026-11-20 12:00 UTC)"
    )
    closed = replace(_OPEN, absent_since=_NOW + 90 * _MINUTE, closed_at=_NOW + 95 * _MINUTE)
    assert line(closed, "closed") == (
        "OVER: a: the server refuses the token (until 2026-11-20 13:30 UTC, 90 min)"
    )


_Fate = Literal["taken", "refused", "killed"]


@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from([_REFUSED, _FAILED])),
            st.booleans(),
            st.integers(1, 20),
            st.sampled_from(["taken", "refused", "killed"]),
            st.sampled_from(["taken", "refused", "killed"]),
        ),
        max_size=40,
    )
)
def test_each_incident_is_told_once_and_closed_once_whatever_happens(
    ticks: list[tuple[set[Problem], bool, int, _Fate, _Fate]],
) -> None:
    """A tick that is killed before it stores a delivery is the only way to a second message."""
    now = _NOW
    incidents: list[Incident] = []
    sent: Counter[tuple[str, str, datetime, Event]] = Counter()
    order: dict[tuple[str, str, datetime], list[Event]] = {}
    repeated: set[tuple[str, str, datetime]] = set()
    quiet: tuple[set[Problem], bool, int, _Fate, _Fate] = (set(), True, 20, "taken", "taken")
    for present, can_read, minutes, *fates in [*ticks, quiet, quiet, quiet]:
        now += minutes * _MINUTE
        unread = () if can_read else ("run_failed",)
        incidents = _after(incidents, *sorted(present, key=str), at=now, unread=unread)
        for destination, fate in zip(("one", "two"), fates, strict=True):
            # A killed process stops at its first message.
            for number in range(len(incidents)):
                while event := due_event(incidents[number], destination, now, remind_after=_DAY):
                    if fate == "refused":
                        break
                    key = (destination, incidents[number].fact, incidents[number].since)
                    sent[*key, event] += 1
                    order.setdefault(key, []).append(event)
                    if fate == "killed":
                        repeated.add(key)
                        break
                    incidents[number] = after_delivery(incidents[number], event, destination, now)
        incidents = [after_sending(each, ["one", "two"], now) for each in incidents]
    # In the end nothing is wrong, and everybody knows.
    assert all(each.settled_at for each in incidents if each.opened_at)
    for destination in ("one", "two"):
        for incident in incidents:
            key = (destination, incident.fact, incident.since)
            if key not in repeated:
                assert sent[*key, "opened"] == sent[*key, "closed"] == 1
            assert (order[key][0], order[key][-1]) == ("opened", "closed")
    assert sum(each.closed_at is None for each in incidents) == 0
