"""Questions to the home of posts that another server deleted: do they still exist?

What belongs here: asking. The questions come from the tables, and what an answer means is decided
by `ingest.handler` and `stream.home`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits, StoppedError
from mastodon_assets.ingest.api.status_ids import listed_id
from mastodon_assets.ingest.recovery.timeline_walk import (
    GonePosts,
    ListedStatus,
    PostChecker,
    WalkItem,
)

# They go before all other requests: this many more than those may be made in the same time.
RESERVED_REQUESTS = 50
SECONDS_BETWEEN_QUESTIONS = 5.0


@dataclass(frozen=True)
class HomeAnswer:
    """What home says of a post; `status` is None if it is gone."""

    status_id: str
    status: Mapping[str, Any] | None
    received_at: datetime


class HomeAsker:
    """Asks one server for posts of its own, in the thread that calls `ask`."""

    def __init__(
        self,
        client: MastodonClient,
        *,
        caller: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[HomeAnswer], bool],
        questions: Callable[[], list[str]],
    ) -> None:
        """Keep the tools; `questions` returns the ids to ask for now."""
        self._checker = PostChecker(
            client, caller=caller, rate_limits=rate_limits, put=self._put_answer
        )
        self._put = put
        self._questions = questions

    def ask(self) -> None:
        """Ask for all posts that wait, and put an answer for each one that is shown or gone.

        Raises:
            StoppedError: The run ends.
            ServiceUnavailableError: The server or PostgreSQL does not answer.
        """
        if status_ids := self._questions():
            self._checker.check(status_ids)

    def _put_answer(self, item: WalkItem) -> bool:
        if isinstance(item, GonePosts):
            for status_id in item.status_ids:
                if not self._put(HomeAnswer(status_id, None, item.received_at)):
                    raise StoppedError
        elif isinstance(item, ListedStatus):
            found = listed_id(item.status)
            if found is not None:
                return self._put(HomeAnswer(found, item.status, datetime.now(UTC)))
        return True
