"""Stored posts that are asked for again without a stream."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.recovery import recheck
from mastodon_assets.ingest.recovery.recheck import Rechecked, Rechecker, StoredPost

NOW = datetime.now(UTC)


class _Checker:
    """It is asked, and cannot ask for the last `unchecked` posts."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.unchecked = 0
        self.fails = False

    def check(self, ids: list[str]) -> int:
        self.asked.append(ids)
        if self.fails:
            raise ServiceUnavailableError("503")
        return self.unchecked


def posts(*hours: int) -> list[StoredPost]:
    return [StoredPost(str(each), NOW - timedelta(hours=each)) for each in hours]


class _Rounds:
    def __init__(self, stored: Iterable[StoredPost]) -> None:
        self.time, self.checker, self.stored = 0.0, _Checker(), list(stored)
        self.items: list[Any] = []
        self.rechecker = Rechecker(
            self.checker,  # type: ignore[arg-type]
            put=lambda item: not self.items.append(item),  # type: ignore[func-returns-value]
            stored=lambda: self.stored,
            clock=lambda: self.time,
        )

    def after(self, seconds: float) -> Rechecked:
        self.time += seconds
        self.rechecker.check_if_due()
        found: Rechecked = self.items[-1]
        return found


def test_young_posts_come_first_and_each_is_asked_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recheck, "_MOST_PER_ROUND", 2)
    rounds = _Rounds(posts(9, 1, 5))
    rounds.rechecker.check_if_due()
    assert rounds.checker.asked == []

    found = rounds.after(600)
    assert rounds.checker.asked == [["1", "5"]]
    assert (found.known, found.checked, found.oldest_unchecked) == (3, 2, rounds.stored[0].event_at)
    assert str(found).endswith(
        "2 of 3 posts of the last days asked for, the oldest other one is 9 h old"
    )

    rounds.after(600)
    assert rounds.checker.asked[-1] == ["9"]
    assert rounds.after(600).oldest_unchecked is None
    assert rounds.checker.asked[-1] == []
    rounds.stored += posts(0)
    rounds.after(600)
    assert rounds.checker.asked[-1] == ["0"]
    rounds.after(3600)
    assert rounds.checker.asked[-1] == ["0", "1"]
    rounds.after(3600)
    assert rounds.checker.asked[-1] == ["5", "9"]


def test_what_could_not_be_asked_is_asked_in_the_next_round() -> None:
    rounds = _Rounds(posts(1, 2, 3))
    rounds.checker.unchecked = 2
    assert rounds.after(600).checked == 1
    rounds.checker.fails = True
    assert rounds.after(600).checked == 1
    rounds.checker.fails, rounds.checker.unchecked = False, 0
    assert rounds.after(600).checked == 3
    assert rounds.checker.asked[-1] == ["2", "3"]
