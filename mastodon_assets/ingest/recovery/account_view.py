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
    """Compare the newest page without a token with what the account gets right after it.

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
    if not shown:
        return None
    page = caller.call(rate_limits.every, client.newest_page)
    seen = {listed_id(status) for status in page}
    if (oldest := newest_id(page[::-1])) is not None:
        before = partial(client.timeline_page_before, oldest)
        seen |= {listed_id(status) for status in caller.call(rate_limits.paged, before)}
    unseen = Counter(
        str(status.get("language") or _UNDECLARED)
        for status in shown
        if listed_id(status) not in seen
    )
    return AccountCompared(len(shown), dict(unseen.most_common()))
