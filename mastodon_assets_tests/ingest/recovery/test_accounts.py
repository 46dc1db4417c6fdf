"""Accounts with stored posts that are asked for again."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits
from mastodon_assets.ingest.recovery import accounts
from mastodon_assets.ingest.recovery.accounts import AccountChecker, AccountsChecked, KnownAccount

NOW = datetime.now(UTC)


class _Rounds:
    """Rounds of a checker; the client answers with `answers`, an account that exists if none."""

    def __init__(self, *hours: int) -> None:
        self.time = 0.0
        self.asked: list[str] = []
        self.answers: dict[str, Mapping[str, Any] | Exception | None] = {}
        self.items: list[AccountsChecked] = []
        self.known = [
            KnownAccount(str(each), f"a{each}@one.example", NOW - timedelta(hours=each))
            for each in hours
        ]
        self.checker = AccountChecker(
            self,  # type: ignore[arg-type]
            caller=RateLimitedCaller(threading.Event()),
            rate_limits=RateLimits(is_limited=False),
            put=lambda item: not self.items.append(item),  # type: ignore[func-returns-value]
            known=lambda: self.known,
            clock=lambda: self.time,
        )

    def account(self, account_id: str) -> Mapping[str, Any] | None:
        self.asked.append(account_id)
        answer = self.answers.get(account_id, {"id": account_id})
        if isinstance(answer, Exception):
            raise answer
        return answer

    def after(self, seconds: float) -> AccountsChecked:
        self.time += seconds
        self.asked.clear()
        self.checker.check_if_due()
        return self.items[-1]


def test_accounts_that_posted_last_come_first_and_gone_ones_are_named_until_their_posts_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts, "_MOST_PER_ROUND", 3)
    rounds = _Rounds(9, 1, 5, 7)
    # GoToSocial empties such accounts and says so; others answer 404 or 410.
    rounds.answers = {"1": {"id": "1", "suspended": True}, "5": None, "7": RefusedError("403", 403)}
    rounds.checker.check_if_due()
    assert rounds.asked == []

    found = rounds.after(600)
    assert rounds.asked == ["1", "5", "7"]
    assert (found.gone, found.known, found.checked) == (["a1@one.example", "a5@one.example"], 4, 3)
    assert str(found).endswith("3 of 4 of the last days asked for, the oldest post of the others"
                               " is 9 h old")  # fmt: skip
    del rounds.known[1]
    found = rounds.after(600)
    assert rounds.asked == ["9"]
    assert (found.gone, found.checked, found.oldest_unchecked) == (["a5@one.example"], 3, None)
    # An account comes back, and a failure of the server is no answer.
    rounds.answers = {"5": {"id": "5"}, "7": RefusedError("401", 401, is_of_token=True)}
    with pytest.raises(ServiceUnavailableError):
        rounds.after(3600)
    del rounds.answers["7"]
    assert rounds.after(600).gone == []


def test_a_server_that_shows_no_account_at_all_says_nothing_of_them() -> None:
    """Not every software has this request; all posts would be removed."""
    rounds = _Rounds(1, 2, 3)
    rounds.answers = dict.fromkeys("123")
    assert (rounds.after(600).gone, rounds.items[-1].checked) == ([], 3)

    rounds.answers = dict.fromkeys("12")
    assert rounds.after(3600).gone == ["a1@one.example", "a2@one.example"]
