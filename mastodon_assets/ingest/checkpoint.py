"""What a run has done so far: the cursor and the gaps, recorded after Kafka's acknowledgement.

What belongs here: what is written when. When a gap begins and ends is decided in `source_run`,
and when it is closed in `gap_repair`.
"""

import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from pydantic import SecretStr

from mastodon_assets.ingest.api.status_ids import is_number
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.recovery.cursors import Cursor, read_cursor, save_cursor
from mastodon_assets.ingest.recovery.gaps import Gap, read_open_gaps, read_stored_posts, save_gap
from mastodon_assets.ingest.source_states import SourceState, read_state, save_state
from mastodon_assets.kafka.publisher import Publisher

_START = "no ingest was running"
_REPORT_SECONDS = 15


class Progress:
    """`position` is the id up to which everything is published; `open_gaps` wait for a walk.

    `last_streamed` is the newest post that the stream told of, with gaps before it or without.
    """

    def __init__(
        self, postgres_url: SecretStr, publisher: Publisher, summary: IngestSummary, source: str
    ) -> None:
        """Reads where the last run ended. Raises: ServiceUnavailableError, MissingTablesError."""
        self._postgres_url = postgres_url
        self._publisher = publisher
        self._summary = summary
        self._source = source
        self._unsaved: list[Gap] = []
        self._closed: list[Gap] = []
        self._told: SourceState | None = None
        self._told_at = 0.0
        self.closed_gaps: Counter[str] = Counter()
        self.last_streamed: str | None = None
        self.last_state = read_state(postgres_url, summary.instance, source)
        saved = read_cursor(postgres_url, summary.instance, source)
        self.position = summary.cursor = None if saved is None else saved.last_acked_id
        self.open_gaps = [] if saved is None else self._gaps_since(saved)

    def stored_posts(self, limit: int) -> list[tuple[str, datetime | None]]:
        """Ids and edits of the server's posts that came last into the tables, newest first."""
        return read_stored_posts(self._postgres_url, self._summary.instance, limit)

    def move_to(self, status_id: str) -> None:
        """All up to `status_id` is published."""
        self.position = status_id

    def open_gap(self, at: datetime, reason: str) -> None:
        """Nobody reads the stream from `at` on; a gap that has not ended goes on."""
        if not any(gap.ended_at is None for gap in self.open_gaps):
            # While an earlier gap is walked, the position is far behind the stream.
            told = self.last_streamed
            from_id = self.position if told is None else later_id(self.position, told)
            gap = Gap(at, reason, from_id)
            self.open_gaps.append(gap)
            self._unsaved.append(gap)

    def end_gaps(self, at: datetime, known_ids: list[str]) -> None:
        """The stream is open since `at`; the posts known by then came before it broke."""
        for gap in self.open_gaps:
            if gap.ended_at is None:
                gap.ended_at, gap.known_ids = at, known_ids
                self._unsaved.append(gap)

    def bound_gaps(self, status_id: str) -> None:
        """The stream tells a post, after the gaps that have ended and before one that has not.

        What was missed is then a range that stays as it is.
        """
        for gap in self.open_gaps:
            if gap.ended_at is None:
                gap.from_id = later_id(gap.from_id, status_id)
            elif gap.to_id is None:
                gap.to_id = status_id
                self._unsaved.append(gap)

    def reopen_gaps(self, reason: str) -> None:
        """Gaps after which the stream told no post go on, now for `reason` too."""
        for gap in self.open_gaps:
            if gap.to_id is None:
                gap.ended_at = None
                if reason not in gap.reason:
                    gap.reason = f"{gap.reason}; {reason}"
                self._unsaved.append(gap)

    def close_gaps(
        self, gaps: Iterable[Gap], failure: str | None, *, are_posts_missing: bool
    ) -> None:
        """Nothing more can be done for `gaps`; `failure` says what is missing, None: nothing.

        Posts are missing from the present position on: of a gap that lies before it none is, and
        its range is empty.
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
            # It is closed for others to see only when Kafka has acknowledged what came of it.
            self._unsaved = [each for each in self._unsaved if each is not gap]
            self._closed.append(gap)
            self.closed_gaps[gap.status] += 1

    def save_gaps(self) -> None:
        """Record gaps that have begun or ended.

        Raises: ServiceUnavailableError, MissingTablesError.
        """
        while self._unsaved:
            save_gap(self._postgres_url, self._summary.instance, self._source, self._unsaved[0])
            del self._unsaved[0]

    def commit(self, seconds: float) -> None:
        """Wait at most `seconds` for Kafka's acknowledgement of all, then record all.

        Raises: ServiceUnavailableError (nothing counts as done then), MissingTablesError.
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

    def tell(self, state: SourceState) -> None:
        """Record what the source does: at once where it changes, else now and then.

        Raises: ServiceUnavailableError, MissingTablesError.
        """
        told = self._told
        is_new = told is None or (told.name, told.detail) != (state.name, state.detail)
        if is_new or time.monotonic() - self._told_at >= _REPORT_SECONDS:
            save_state(self._postgres_url, self._summary.instance, self._source, state)
            self._told, self._told_at = state, time.monotonic()

    def _gaps_since(self, saved: Cursor) -> list[Gap]:
        """Those an earlier run left open, and the one from its end until now."""
        left = read_open_gaps(self._postgres_url, self._summary.instance, self._source)
        unbounded = [gap for gap in left if gap.to_id is None]
        if unbounded:
            for gap in unbounded:
                gap.ended_at = None
            return left
        gap = Gap(saved.updated_at, _START, from_id=saved.last_acked_id)
        self._unsaved.append(gap)
        return [*(each for each in left if each.started_at != gap.started_at), gap]


def _read_to(gap: Gap, position: str | None) -> str | None:
    """The last post of the gap's range that is there once all up to `position` is.

    Ids that are no numbers cannot be compared: then it may be the whole range that is missing.
    """
    ids = [each for each in (gap.from_id, position, gap.to_id) if each is not None]
    if position is None or not all(map(is_number, ids)):
        return gap.from_id
    reached = later_id(gap.from_id, position)
    if gap.to_id is None or later_id(reached, gap.to_id) == gap.to_id:
        return reached
    return gap.to_id


def later_id(known: str | None, new: str) -> str:
    """The id to go on from after `new` came by the stream.

    Numbers are compared by length and digits, because a stream does not keep their order. Ids of
    another form say nothing about time: among them the one that came last counts. A number and
    another form cannot be compared, and the known one stays: to read a post again does no harm.
    """
    if known is None or (not is_number(known) and not is_number(new)):
        return new
    if is_number(known) and is_number(new):
        return max(known, new, key=lambda status_id: (len(status_id), status_id))
    return known
