"""Recorded `Status` objects, one per line, served unchanged.

Ids of a recording come from several servers and software. They are opaque text; the order of the
lines is the order of the posts.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mastodon_assets.errors import PlatformError
from mastodon_assets.simulator import sse
from mastodon_assets.simulator.sources import Frame, StreamInterrupted, tags_of
from mastodon_assets.simulator.timeline import Entry, PageRequest, Timeline


class RecordingError(PlatformError):
    """Raised if a file of statuses cannot be read or has a line that is no status."""


@dataclass(frozen=True)
class RecordedStatus:
    """A line of the file, without surrounding white space."""

    status_id: str
    is_local: bool
    line: bytes
    tags: frozenset[str] = frozenset()


def read_statuses(path: Path) -> list[RecordedStatus]:
    """Read the statuses of a file of newline-delimited JSON; empty lines are skipped.

    Raises:
        RecordingError: The file cannot be read, or a line is not a JSON object with an `id`.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordingError(
            f"cannot read {path}: {error.strerror}; name a readable file"
        ) from error
    return [
        _parse(line.strip(), f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _parse(line: bytes, place: str) -> RecordedStatus:
    try:
        status = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise RecordingError(f"{place}: not JSON; expected one Status object per line") from error
    if not isinstance(status, dict) or not isinstance(status.get("id"), str) or not status["id"]:
        raise RecordingError(
            f"{place}: no JSON object with an id; expected one Status object per line"
        )
    return RecordedStatus(status["id"], _is_local(status), line, tags_of(status))


def _is_local(status: dict[str, Any]) -> bool:
    account = status.get("account")
    acct = account.get("acct") if isinstance(account, dict) else None
    return isinstance(acct, str) and "@" not in acct


class RecordedSource:
    """A source that sends each status as an `update`, in the order of the file.

    The visibility does not matter. The timeline lists every line, the last line as the newest. An
    id that is on several lines means the last of them.
    """

    greeting = sse.GREETING

    def __init__(self, statuses: list[RecordedStatus]) -> None:
        self._statuses = statuses
        self._positions = {status.status_id: i for i, status in enumerate(statuses)}
        entries = (
            Entry(i, status.status_id, status.is_local, partial(bytes, status.line), status.tags)
            for i, status in enumerate(statuses)
        )
        self._timeline = Timeline(entries, position_of=lambda key: self._positions.get(key, -1))

    def history(self) -> Iterator[Frame]:
        """Yield one `update` per line."""
        for status in self._statuses:
            yield Frame(sse.event_frame("update", status.line), status.is_local, status.tags)

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Yield nothing: nothing is posted after the file."""
        return
        yield

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of the timeline, newest first."""
        return self._timeline.page(request)

    def status(self, status_id: str) -> bytes | None:
        """Return the last line with this id; None if there is none."""
        position = self._positions.get(status_id)
        return None if position is None else self._statuses[position].line
