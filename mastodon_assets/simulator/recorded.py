"""Recorded `Status` objects, served as they are in the file.

Ids of a recording come from several servers and programs. They are opaque text; the order in the
file is the order of the posts.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mastodon_assets.contract.recordings import DAMAGE, RecordingError, open_recording
from mastodon_assets.simulator import sse
from mastodon_assets.simulator.sources import Frame, StreamInterrupted, tags_of
from mastodon_assets.simulator.timeline import Entry, PageRequest, Timeline


@dataclass(frozen=True)
class RecordedStatus:
    """A status of the file as JSON; a line of the file is unchanged."""

    status_id: str
    is_local: bool
    line: bytes
    tags: frozenset[str] = frozenset()
    is_reply: bool = False


def read_statuses(path: Path) -> list[RecordedStatus]:
    """Read the statuses of a file in one of the formats of `contract.recordings`.

    Raises:
        RecordingError: The file cannot be read, or an entry is not a JSON object with an `id`.
    """
    try:
        with path.open("rb") as file:
            return [
                _parse(document, f"{path}, status {number}")
                for number, document in enumerate(open_recording(file).documents, start=1)
            ]
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecordingError(f"cannot read {path}: {reason}; name a readable file") from error
    except DAMAGE as error:
        raise RecordingError(f"{path} is damaged ({error}); get a complete copy") from error


def _parse(document: bytes, place: str) -> RecordedStatus:
    try:
        status = json.loads(document.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{place}: not JSON; expected a Status object") from error
    status_id = status.get("id") if isinstance(status, dict) else None
    if isinstance(status_id, int) and not isinstance(status_id, bool):
        # Clients read ids as text.
        status_id = str(status_id)
        document = sse.utf8(sse.json_text({**status, "id": status_id}))
    if not isinstance(status_id, str) or not status_id:
        raise RecordingError(f"{place}: no JSON object with an id; expected a Status object")
    is_reply = status.get("in_reply_to_id") is not None
    return RecordedStatus(status_id, _is_local(status), document, tags_of(status), is_reply)


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
            Entry(
                i,
                status.status_id,
                status.is_local,
                partial(bytes, status.line),
                status.tags,
                status.is_reply,
            )
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
