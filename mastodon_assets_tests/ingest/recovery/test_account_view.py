"""Posts that the server hides from the token's account."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits
from mastodon_assets.ingest.recovery.account_view import AccountCompared, compare_views

LANGUAGES = ["en", "de", None, "de"]


class _Client:
    """A timeline of posts 1 to 60, of which the account does not see some.

    It goes on so fast that a newest page of the account would have none of the first one's posts.
    """

    def __init__(
        self, hidden: set[int], *, is_closed: bool = False, is_of_account: bool = True
    ) -> None:
        self.hidden = hidden
        self.is_closed = is_closed
        self.is_of_account = is_of_account

    def without_token(self) -> "_Client":
        if self.is_closed:
            return _Client(set(), is_closed=True, is_of_account=False)
        return _Client(set(), is_of_account=False)

    def newest_page(self) -> list[Mapping[str, Any]]:
        if self.is_closed and not self.hidden:
            raise RefusedError("401", 401)
        return self._page(61 if not self.is_of_account else 161)

    def timeline_page_before(self, max_id: str) -> list[Mapping[str, Any]]:
        return self._page(int(max_id))

    def _page(self, end: int) -> list[Mapping[str, Any]]:
        shown = [number for number in range(1, end) if number not in self.hidden]
        return [{"id": str(number), "language": LANGUAGES[number % 4]} for number in shown[:-41:-1]]


def compared(client: _Client) -> AccountCompared | None:
    caller, limits = RateLimitedCaller(threading.Event()), RateLimits(is_limited=False)
    return compare_views(client, caller, limits)  # type: ignore[arg-type]


def test_what_is_hidden_from_the_account_is_counted_by_language() -> None:
    found = compared(_Client({25, 27, 29, 30, 5}))
    assert found == AccountCompared(39, {"de": 3, "und": 1})
    assert found.is_filtered
    assert str(found).startswith("4 of 39 posts that the server shows without a token are hidden")

    one = compared(_Client({30}))
    assert one is not None
    assert not one.is_filtered


def test_what_is_no_post_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Client, "newest_page", lambda self: [*self._page(3), "odd", None])

    assert compared(_Client(set())) == AccountCompared(3, {})


def test_a_server_that_shows_nothing_without_a_token_is_not_compared() -> None:
    assert compared(_Client({1}, is_closed=True)) is None
