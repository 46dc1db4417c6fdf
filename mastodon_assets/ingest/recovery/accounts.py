"""Accounts with stored posts are asked for: were they suspended or deleted?

What belongs here: which accounts are due, and what their answers say. Not every server sends a
delete per post of such an account. What becomes of its posts is decided in `source_worker`, which
holds removals for many accounts at once.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.errors import RateLimitedError, RefusedError
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits, StoppedError

# An account is asked for after the first interval, and then at intervals that double.
SECONDS_BETWEEN_ROUNDS = 10 * 60.0
_MOST_PER_ROUND = 20
_FIRST_INTERVAL, _LONGEST_INTERVAL = 3600.0, 24 * 3600.0


@dataclass(frozen=True)
class KnownAccount:
    """An account with stored posts.

    Attributes:
        account_id: Its id at the server.
        username: Its name as stored: a handle or a pseudonym.
        last_post_at: The time of its newest stored post.
    """

    account_id: str
    username: str
    last_post_at: datetime


@dataclass(frozen=True)
class AccountsChecked:
    """A round has ended.

    `gone` are the accounts that the server does not show any more, if it has shown any; `checked`
    are the ones that were asked for by this run, and `known` all with posts of the last days.
    `oldest_unchecked` is the time of the oldest last post of the others.
    """

    gone: Sequence[str]
    known: int
    checked: int
    oldest_unchecked: datetime | None

    def __str__(self) -> str:
        """Return the state of the checks as `status` shows it."""
        text = f"accounts: {self.checked} of {self.known} of the last days asked for"
        if self.oldest_unchecked is None:
            return text
        hours = (datetime.now(UTC) - self.oldest_unchecked) / timedelta(hours=1)
        return f"{text}, the oldest post of the others is {hours:.0f} h old"


class AccountChecker:
    """Asks for accounts in rounds, in the thread that calls `check_if_due`."""

    def __init__(
        self,
        client: MastodonClient,
        *,
        caller: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[AccountsChecked], bool],
        known: Callable[[], Iterable[KnownAccount]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the tools; `known` returns the accounts with posts of the last days."""
        self._client = client
        self._caller = caller
        self._rate_limits = rate_limits
        self._put_item = put
        self._known = known
        self._clock = clock
        self._round_at = clock() + SECONDS_BETWEEN_ROUNDS
        self._due_at: dict[str, tuple[float, float]] = {}
        self._gone: set[str] = set()

    def check_if_due(self) -> None:
        """Ask for the accounts that are due, if it is time; those that posted last come first.

        Raises:
            StoppedError: The run ends.
            ServiceUnavailableError: The server or PostgreSQL does not answer.
        """
        if self._clock() < self._round_at:
            return
        self._round_at = self._clock() + SECONDS_BETWEEN_ROUNDS
        accounts = {
            account.account_id: account
            for account in sorted(
                self._known(), key=lambda account: account.last_post_at, reverse=True
            )
        }
        self._due_at = {key: due for key, due in self._due_at.items() if key in accounts}
        self._gone &= accounts.keys()
        due = [key for key in accounts if self._clock() >= self._due_at.get(key, (-1.0, 0.0))[0]]
        for account_id in due[:_MOST_PER_ROUND]:
            self._ask(account_id)
        others = [
            account.last_post_at for key, account in accounts.items() if key not in self._due_at
        ]
        # A server that shows none of them may not serve accounts by their ids at all.
        has_shown_any = len(self._gone) < len(self._due_at)
        checked = AccountsChecked(
            [accounts[key].username for key in accounts if key in self._gone and has_shown_any],
            len(accounts),
            len(self._due_at),
            min(others, default=None),
        )
        if not self._put_item(checked):
            raise StoppedError

    def _ask(self, account_id: str) -> None:
        request = partial(self._client.account, account_id)
        try:
            is_gone = _is_gone(self._caller.call(self._rate_limits.every, request))
        except RateLimitedError:
            raise
        except RefusedError as error:
            if error.status_code >= 500 or error.is_of_token:
                raise
            # This says nothing about the account.
            is_gone = False
        if is_gone:
            self._gone.add(account_id)
        else:
            self._gone.discard(account_id)
        _, interval = self._due_at.get(account_id, (0, _FIRST_INTERVAL / 2))
        interval = min(2 * interval, _LONGEST_INTERVAL)
        self._due_at[account_id] = (self._clock() + interval, interval)


def _is_gone(account: Mapping[str, object] | None) -> bool:
    """Return whether an account was deleted, or shows that it is suspended (GoToSocial 0.20)."""
    return account is None or account.get("suspended") is True
