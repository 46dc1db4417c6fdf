"""What the token's account does not see: the newest page with the token and without it.

What belongs here: the requests, and what they show. The server filters by lists of the account and
by its chosen languages, which no list shows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits
from mastodon_assets.ingest.api.status_ids import listed_id, newest_id

# A single post may have been hidden or deleted between the requests.
_FEWEST_UNSEEN = 2
_UNDECLARED = "und"


@dataclass(frozen=True)
class AccountCompared:
    """Of `listed` posts that anybody sees, the account does not see `unseen`, by language."""

    listed: int
    unseen: Mapping[str, int]

    def __str__(self) -> str:
        """Return what is not seen, in one line."""
        total = sum(self.unseen.values())
        languages = ", ".join(f"{language} {count}" for language, count in self.unseen.items())
        return (
            f"{total} of {self.listed} posts that the server shows without a token are hidden from"
            f" the token's account ({languages}); look at its languages, blocks and mutes"
        )

    @property
    def is_filtered(self) -> bool:
        """Whether more is hidden than chance explains."""
        return sum(self.unseen.values()) >= _FEWEST_UNSEEN


def compare_views(
    client: MastodonClient, caller: RateLimitedCaller, rate_limits: RateLimits
) -> AccountCompared | None:
    """Compare the newest page without a token with what the account sees from there on.

    The account's pages begin at the newest post of that page, because a pause for the rate limits
    may be longer than it takes to post a page.

    Returns:
        None if the server shows nothing without a token.

    Raises:
        StoppedError: The run ends.
        ServiceUnavailableError: The server does not answer.
    """
    try:
        shown = caller.call(rate_limits.every, client.without_token().newest_page)
    except RefusedError:
        return None
    max_id, compared = newest_id(shown), shown[1:]
    if max_id is None or not compared:
        return None
    seen: set[str | None] = set()
    # The second page is for rows that appeared between the requests.
    for _ in range(2):
        before = partial(client.timeline_page_before, max_id)
        page = caller.call(rate_limits.paged, before)
        seen |= {listed_id(status) for status in page}
        max_id = newest_id(page[::-1]) or max_id
    unseen = Counter(
        str(status.get("language") or _UNDECLARED)
        for status in compared
        if isinstance(status, Mapping) and listed_id(status) not in seen
    )
    return AccountCompared(len(compared), dict(unseen.most_common()))
