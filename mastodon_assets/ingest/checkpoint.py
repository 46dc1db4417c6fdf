"""Cursor, gaps and state of one source, recorded after Kafka's acknowledgement.

What belongs here: what is written when. When a gap begins and ends is decided in `source_worker`,
and when it is closed in `gap_repair`.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime

from pydantic import SecretStr

from mastodon_assets.ingest.api.status_ids import id_order, is_number
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.recovery.accounts import KnownAccount
from mastodon_assets.ingest.recovery.cursors import Cursor, read_cursor, save_cursor
from mastodon_assets.ingest.recovery.gaps import (
    Gap,
    read_accounts_with_posts,
    read_known_accounts,
    read_open_gaps,
    read_recent_posts,
    read_stored_posts,
    read_stored_uris,
    save_gap,
)
from mastodon_assets.ingest.recovery.recheck import StoredPost
from mastodon_assets.ingest.source_states import SourceState, read_state, save_state
from mastodon_assets.ingest.stored_posts import PostAlias, posts_of_accounts
from mastodon_assets.kafka.publisher import Publisher

_START = "no ingest was running"
_RECORD_SECONDS = 15
_STORED_URIS = 50_000


class Checkpoint:
    """How far one source has been read, and what is recorded of it.

    `position` is the id up to which everything is published. `open_gaps` wait for a walk.
    `last_streamed` is the newest post of the stream, whether or not there are gaps before it.
    """

    def __init__(
        self, postgres_url: SecretStr, publisher: Publisher, summary: IngestSummary, source: str
    ) -> None:
        """Read where the last run ended.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        self._postgres_url = postgres_url
        self._publisher = publisher
        self._summary = summary
        self._source = source
        self._unsaved: list[Gap] = []
        self._closed: list[Gap] = []
        self._recorded: SourceState | None = None
        self._recorded_at = 0.0
        self.closed_gaps: Counter[str] = Counter()
        self.last_streamed: str | None = None
        self.last_state = read_state(postgres_url, summary.instance, source)
        saved = read_cursor(postgres_url, summary.instance, source)
        self.read_until = None if saved is None else saved.updated_at
        self.position = summary.cursor = None if saved is None else saved.last_acked_id
        self.open_gaps = [] if saved is None else self._gaps_since(saved)

    def stored_posts(self, limit: int) -> list[tuple[str, datetime | None]]:
        """Return ids and edit times of the newest posts in the tables, newest first."""
        return read_stored_posts(self._postgres_url, self._summary.instance, limit)

    def posts_of_accounts(self, usernames: Collection[str], own_domain: str) -> list[PostAlias]:
        """Return the stored posts of accounts that refuse, as the server says.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        return posts_of_accounts(
            self._postgres_url, self._summary.instance, usernames, own_domain=own_domain
        )

    def stored_uris(self) -> list[str]:
        """Return the uris of the newest posts in the tables, newest last."""
        return read_stored_uris(self._postgres_url, self._summary.instance, _STORED_URIS)

    def recent_posts(self) -> list[StoredPost]:
        """Return the posts of the last days in the tables."""
        return read_recent_posts(self._postgres_url, self._summary.instance)

    def known_accounts(self) -> list[KnownAccount]:
        """Return the accounts of posts of the last days in the tables."""
        return read_known_accounts(self._postgres_url, self._summary.instance)

    def accounts_with_posts(self, usernames: Collection[str]) -> set[str]:
        """Return those of the accounts that have stored posts.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        return read_accounts_with_posts(self._postgres_url, usernames)

    def move_to(self, status_id: str) -> None:
        """Note that everything up to `status_id` is published."""
        self.position = status_id

    def open_gap(self, at: datetime, reason: str) -> None:
        """Begin a gap at `at`; if one has not ended yet, it continues."""
        if not any(gap.ended_at is None for gap in self.open_gaps):
            # While an earlier gap is walked, the position is far behind the stream.
            newest = self.last_streamed
            from_id = self.position if newest is None else later_id(self.position, newest)
            gap = Gap(at, reason, from_id)
            self.open_gaps.append(gap)
            self._unsaved.append(gap)

    def end_gaps(self, at: datetime, known_ids: list[str]) -> None:
        """End the open gaps at `at`; `known_ids` were published before the stream broke."""
        for gap in self.open_gaps:
            if gap.ended_at is None:
                gap.ended_at, gap.known_ids = at, known_ids
                self._unsaved.append(gap)

    def bound_gaps(self, status_id: str) -> None:
        """Use a post of the stream as a bound: after ended gaps, before one that continues."""
        for gap in self.open_gaps:
            if gap.ended_at is None:
                gap.from_id = later_id(gap.from_id, status_id)
            elif gap.to_id is None:
                gap.to_id = status_id
                self._unsaved.append(gap)

    def reopen_gaps(self, reason: str) -> None:
        """Continue the gaps after which the stream sent no post, now also for `reason`."""
        for gap in self.open_gaps:
            if gap.to_id is None:
                gap.ended_at = None
                if reason not in gap.reason:
                    gap.reason = f"{gap.reason}; {reason}"
                self._unsaved.append(gap)

    def close_gaps(
        self, gaps: Iterable[Gap], failure: str | None, *, are_posts_missing: bool
    ) -> None:
        """Close `gaps`, because nothing more can be done for them.

        Args:
            gaps: The gaps to close.
            failure: What is missing; None if nothing is.
            are_posts_missing: Whether posts after the present position are missing. A gap before
                it is complete, and its range becomes empty.
        """
        for gap in gaps:
            read_to = _read_to(gap, self.position) if are_posts_missing else gap.from_id
            if failure is None:
                gap.status = "recovered"
            else:
                is_untouched = read_to == gap.from_id and not gap.recovered_count
                is_hopeless = are_posts_missing and is_untouched
                gap.status = "unrecoverable" if is_hopeless else "partial"
                gap.reason = f"{gap.reason}; {failure}"
            gap.from_id = read_to
            # The closed state is saved only after Kafka has acknowledged the recovered posts.
            self._unsaved = [each for each in self._unsaved if each is not gap]
            self._closed.append(gap)
            self.closed_gaps[gap.status] += 1

    def save_gaps(self) -> None:
        """Record gaps that have begun or ended.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        while self._unsaved:
            save_gap(self._postgres_url, self._summary.instance, self._source, self._unsaved[0])
            del self._unsaved[0]

    def commit(self, seconds: float) -> None:
        """Wait at most `seconds` until Kafka has acknowledged everything, then record it.

        Raises:
            ServiceUnavailableError: Kafka or PostgreSQL does not answer; nothing counts as done.
            MissingTablesError: The tables are missing.
        """
        self.save_gaps()
        self._publisher.flush(seconds)
        if self.position is not None and self.position != self._summary.cursor:
            summary = self._summary
            save_cursor(
                self._postgres_url, summary.instance, self._source, self.position, summary.rules
            )
            self._summary.cursor = self.position
        while self._closed:
            save_gap(self._postgres_url, self._summary.instance, self._source, self._closed[0])
            del self._closed[0]

    def record_state(self, state: SourceState) -> None:
        """Record the state of the source: at once if it changes, otherwise every 15 seconds.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        last = self._recorded
        is_new = last is None or _kind_of(last) != _kind_of(state)
        if is_new or time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            save_state(self._postgres_url, self._summary.instance, self._source, state)
            self._recorded, self._recorded_at = state, time.monotonic()

    def _gaps_since(self, saved: Cursor) -> list[Gap]:
        """Return the gaps that an earlier run left open, and the one from its end until now."""
        left = read_open_gaps(self._postgres_url, self._summary.instance, self._source)
        unbounded = [gap for gap in left if gap.to_id is None]
        if unbounded:
            for gap in unbounded:
                gap.ended_at = None
            return left
        gap = Gap(saved.updated_at, _START, from_id=saved.last_acked_id)
        self._unsaved.append(gap)
        return [*(each for each in left if each.started_at != gap.started_at), gap]


def _kind_of(state: SourceState) -> tuple[str, str | None, bool]:
    """Return what is recorded at once if it changes."""
    return state.name, state.detail, state.last_post_at is None


def _read_to(gap: Gap, position: str | None) -> str | None:
    """Return the last recovered post of the gap's range, if all up to `position` is recovered.

    Ids that are not numbers cannot be compared; then the whole range may be missing.
    """
    ids = [each for each in (gap.from_id, position, gap.to_id) if each is not None]
    if position is None or not all(map(is_number, ids)):
        return gap.from_id
    reached = later_id(gap.from_id, position)
    if gap.to_id is None or later_id(reached, gap.to_id) == gap.to_id:
        return reached
    return gap.to_id


def later_id(known: str | None, new: str) -> str:
    """Return the id to continue from after the stream sent `new`.

    Numbers are compared by length and digits, because a stream does not keep their order. Ids of
    another form say nothing about time, so the latest arrival counts. A number and another form
    cannot be compared, and the known id stays: reading a post twice does no harm.
    """
    if known is None or (not is_number(known) and not is_number(new)):
        return new
    if is_number(known) and is_number(new):
        return max(known, new, key=id_order)
    return known
