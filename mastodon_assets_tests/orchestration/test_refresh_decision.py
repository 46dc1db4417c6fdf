"""The sensor's decision, on facts made by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mastodon_assets.orchestration.refresh_decision import (
    MAX_ATTEMPTS,
    MAX_BACKOFF,
    Ask,
    RefreshFacts,
    Skip,
    decide_refresh,
)

_NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)

# Everything that Kafka has is shown, with the champion there is.
UP_TO_DATE = RefreshFacts(
    now=_NOW,
    lag=0,
    is_topic_cut=False,
    end_offsets={0: 10, 1: 20},
    toots_version=3,
    shown_version=3,
    champion="m1",
    shown_champions=frozenset({"m1"}),
    run_in_flight=None,
    last_asked_at=_NOW - 2 * _MINUTE,
    failed_targets=(),
    min_interval=_MINUTE,
)
BEHIND = replace(UP_TO_DATE, lag=5)


def _asked(facts: RefreshFacts) -> Ask:
    decision = decide_refresh(facts)
    assert isinstance(decision, Ask), decision
    return decision


def _skipped(facts: RefreshFacts) -> str:
    decision = decide_refresh(facts)
    assert isinstance(decision, Skip), decision
    return decision.reason


def _failed(times: int, facts: RefreshFacts = BEHIND) -> RefreshFacts:
    return replace(facts, failed_targets=(facts.target_key,) * times)


def test_nothing_new_asks_for_nothing() -> None:
    assert _skipped(UP_TO_DATE).startswith("nothing new")


def test_a_platform_without_a_message_says_how_to_get_some() -> None:
    empty = replace(
        UP_TO_DATE,
        end_offsets={0: 0, 1: 0},
        toots_version=0,
        shown_version=0,
        champion=None,
        shown_champions=frozenset({None}),
        last_asked_at=None,
    )
    assert "mastodon-assets ingest" in _skipped(empty)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (BEHIND, "5 new messages"),
        (replace(UP_TO_DATE, lag=1), "1 new message"),
        (replace(UP_TO_DATE, toots_version=4), "rows changed"),
        (replace(UP_TO_DATE, champion="m2"), "model m2"),
        (replace(UP_TO_DATE, shown_champions=frozenset({"m1", None})), "model m1"),
        (replace(UP_TO_DATE, champion=None), "model none"),
        (replace(UP_TO_DATE, is_topic_cut=True), "topic ends before"),
    ],
)
def test_each_kind_of_news_asks_for_a_refresh(facts: RefreshFacts, reason: str) -> None:
    assert reason in _asked(facts).reason


def test_all_news_are_named() -> None:
    facts = replace(BEHIND, toots_version=4, champion="m2")
    assert _asked(facts).reason.count(",") == 2


def test_the_first_refresh_ever_waits_for_nothing() -> None:
    _asked(replace(BEHIND, last_asked_at=None))


def test_a_run_in_flight_is_waited_for_and_named() -> None:
    reason = _skipped(replace(BEHIND, run_in_flight="train_job 1a2b3c4d"))
    assert "5 new messages" in reason
    assert "waiting for train_job 1a2b3c4d" in reason


def test_a_refresh_waits_until_the_minimum_has_passed_since_the_last() -> None:
    almost = replace(BEHIND, last_asked_at=_NOW - timedelta(seconds=59))
    assert "not before 12:00:01 UTC" in _skipped(almost)
    _asked(replace(BEHIND, last_asked_at=_NOW - timedelta(seconds=60)))


def test_without_a_minimum_a_refresh_follows_at_once_but_a_failed_one_does_not() -> None:
    facts = replace(BEHIND, min_interval=timedelta(0), last_asked_at=_NOW)
    _asked(facts)
    assert "failed" in _skipped(_failed(1, facts))


@pytest.mark.parametrize(
    ("failures", "minutes"), [(1, 1 + 1), (2, 1 + 2), (3, 1 + 4), (6, 1 + 32), (7, 1 + 60)]
)
def test_waits_double_with_each_failure_up_to_an_hour(failures: int, minutes: int) -> None:
    facts = _failed(failures)
    too_soon = replace(facts, last_asked_at=_NOW - minutes * _MINUTE + timedelta(seconds=1))
    reason = _skipped(too_soon)
    assert f"{failures} refresh" in reason
    assert "next attempt at 12:00:01 UTC" in reason
    assert "60 min" in reason
    assert str(MAX_ATTEMPTS) in reason
    _asked(replace(facts, last_asked_at=_NOW - minutes * _MINUTE))


def test_a_failed_refresh_is_asked_again_under_a_new_key_without_a_new_message() -> None:
    first = _asked(BEHIND)
    again = _asked(replace(_failed(1), last_asked_at=_NOW - timedelta(hours=1)))
    assert again.run_key != first.run_key
    assert first.run_key.endswith("attempt-1")
    assert again.run_key.endswith("attempt-2")


def test_a_canceled_refresh_is_asked_again_under_a_new_key() -> None:
    first = _asked(replace(BEHIND, last_asked_at=_NOW - 5 * _MINUTE))
    assert _asked(BEHIND).run_key != first.run_key


def test_two_ticks_before_the_run_exists_ask_under_one_key() -> None:
    later = replace(BEHIND, now=_NOW + timedelta(seconds=15))
    assert _asked(later).run_key == _asked(BEHIND).run_key


def test_after_the_last_attempt_it_gives_up_and_says_what_to_do() -> None:
    facts = replace(_failed(MAX_ATTEMPTS), last_asked_at=_NOW - timedelta(days=1))
    reason = _skipped(facts)
    assert f"gave up after {MAX_ATTEMPTS}" in reason
    assert "by hand" in reason
    _asked(replace(facts, failed_targets=facts.failed_targets[1:]))


def test_new_messages_after_it_gave_up_are_tried_again_with_the_longest_wait() -> None:
    gave_up = _failed(MAX_ATTEMPTS)
    facts = replace(gave_up, lag=6, end_offsets={0: 11, 1: 20})
    reason = _skipped(replace(facts, last_asked_at=_NOW - timedelta(minutes=59)))
    assert "8 refreshes failed in a row" in reason
    _asked(replace(facts, last_asked_at=_NOW - MAX_BACKOFF - _MINUTE))


def test_failures_of_other_data_leave_this_data_all_its_attempts() -> None:
    others = replace(BEHIND, failed_targets=("other",) * (MAX_ATTEMPTS - 1) + (BEHIND.target_key,))
    _asked(replace(others, last_asked_at=_NOW - timedelta(hours=2)))


def test_a_thousand_failures_do_not_overflow_the_wait() -> None:
    facts = replace(BEHIND, failed_targets=("other",) * 1000)
    _asked(replace(facts, last_asked_at=_NOW - timedelta(hours=2)))


def test_the_same_state_has_the_same_target_whatever_the_order_of_partitions() -> None:
    assert replace(BEHIND, end_offsets={1: 20, 0: 10}).target_key == BEHIND.target_key
    for change in ({"end_offsets": {0: 10, 1: 21}}, {"toots_version": 4}, {"champion": "m2"}):
        assert replace(BEHIND, **change).target_key != BEHIND.target_key
