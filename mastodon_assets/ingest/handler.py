"""What becomes of one arrival: an upsert, a delete, a line in the errors topic, or nothing.

What belongs here: the decisions, and their counts. Where arrivals come from stands in `queue`.

A withheld post becomes a delete where it may be stored: at every `status.update`, and at an
`update` or a page of the timeline if this run has published the post before. A withheld post that
is met for the first time leaves nothing behind, because a delete stands for ever and would be a
list of those who do not want to be listed.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import orjson

from mastodon_assets.contract.messages import ContractError, Message
from mastodon_assets.contract.times import utc_text
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.api.status_ids import readable_id
from mastodon_assets.ingest.policy.admission import WITHDRAWN, AdmissionPolicy, DroppedError
from mastodon_assets.ingest.policy.normalize import NormalizeError, to_delete
from mastodon_assets.kafka.publisher import Publisher
from mastodon_assets.warehouse.suppression_list import SuppressionList

_SIMULATED_INSTANCE = "simulator.example"
# `status_update` is what mastodon_mock calls it.
_EDITS = frozenset({"status.update", "status_update"})
_REMEMBERED_POSTS = 100_000
_PUBLISHED, _DELETED, _NEVER_EDITED = "published", "deleted", "never edited"


class SuppressedServerError(PlatformError):
    """Nothing may be read from this server any more."""


@dataclass
class IngestSummary:
    """Counts of a run under `rules`.

    `received` is `upserts` and `duplicates` and the sums of `withheld`, `dropped` (by the filters'
    rules) and `errors`, and the deletes that the server sent or that were missed and found;
    `deletes` counts those published, for withheld and dropped posts too. Those withheld as
    `unreadable` also leave a line in the errors topic. A dropped post is not remembered: from
    stream and timeline it counts twice. `ignored` are events of other kinds. `cursor` is the last
    one saved.
    """

    instance: str
    rules: str = ""
    received: int = 0
    upserts: int = 0
    deletes: int = 0
    duplicates: int = 0
    ignored: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    cursor: str | None = None


class EventHandler:
    """Takes arrivals one by one and publishes what they become.

    `suppression_list` gives the list of the withdrawn as it is now; what it raises ends the run.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        instance: str,
        rules: AdmissionPolicy,
        suppression_list: Callable[[], SuppressionList],
    ) -> None:
        """Raises: WithdrawnServerError where `instance` has withdrawn."""
        if suppression_list().matches(None, instance):
            raise SuppressedServerError(
                f"{instance} has withdrawn: nothing is read from it; name another server in"
                " MASTODON_API_BASE_URL"
            )
        self._publisher = publisher
        self._instance = instance
        self._rules = rules
        self._read_suppression_list = suppression_list
        self._suppression_list = suppression_list()
        self._seen = _Seen(_REMEMBERED_POSTS)
        self.summary = IngestSummary(instance, str(rules))

    def remember(self, status_id: str, edited_at: datetime | None) -> None:
        """An earlier run has published this version, and the tables hold it."""
        self._seen.add(status_id, _NEVER_EDITED if edited_at is None else utc_text(edited_at))
        self._seen.add(status_id, _PUBLISHED)

    def handle_event(self, event: StreamEvent) -> str | None:
        """Returns the id of the post that an `update` tells of, withheld or not; else None."""
        with self._dead_letter("stream") as origin:
            return self._handle_event(event, origin)
        return None

    def handle_listed(self, status: Mapping[str, Any], received_at: datetime) -> None:
        """A status of the timeline, as Mastodon.py gives it."""
        with self._dead_letter("backfill") as origin:
            self.summary.received += 1
            self._handle_status(status, None, is_edit=False, received_at=received_at, origin=origin)

    def handle_recorded(self, line: bytes, received_at: datetime) -> None:
        """A status of a recording, as a line of JSON in UTF-8."""
        with self._dead_letter("backfill") as origin:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                self.summary.received += 1
                self._fail("not_json", "the line is not UTF-8", None, origin)
                return
            self._handle_document(text, is_edit=False, received_at=received_at, origin=origin)

    def handle_gone(self, status_id: str, received_at: datetime) -> None:
        """A post that the server has no more; its delete may have been missed."""
        with self._dead_letter("backfill") as origin:
            self.summary.received += 1
            if self._seen.has(status_id, _DELETED):
                self.summary.duplicates += 1
            elif not self._publish_delete(status_id, received_at, origin):
                self._fail("bad_delete", "the payload is not an id", None, origin)

    def published_ids(self, limit: int) -> list[str]:
        """The newest posts published by this run of which no delete was seen, newest first."""
        return self._seen.newest(_PUBLISHED, without=_DELETED, limit=limit)

    @contextmanager
    def _dead_letter(self, origin: str) -> Iterator[str]:
        """Whatever a payload makes fail that nobody has thought of: it is told, the run goes on."""
        # Not for a payload to catch: who has withdrawn must be known, or the run ends.
        self._suppression_list = self._read_suppression_list()
        origin = self._origin(origin)
        try:
            yield origin
        except Exception as error:
            # Nothing says that the payload may be kept.
            self._fail("unexpected", type(error).__name__, None, origin)

    def _handle_event(self, event: StreamEvent, origin: str) -> str | None:
        if event.name == "delete":
            self._handle_delete(event, origin)
        elif event.name == "update" or event.name in _EDITS:
            is_edit = event.name in _EDITS
            status = self._handle_document(
                event.data, is_edit=is_edit, received_at=event.received_at, origin=origin
            )
            if isinstance(status, Mapping) and not is_edit:
                return readable_id(status.get("id"))
        else:
            self.summary.ignored += 1
        return None

    def _handle_document(
        self, text: str, *, is_edit: bool, received_at: datetime, origin: str
    ) -> Any:
        """A status as JSON; returns what was read, None where that is nothing."""
        self.summary.received += 1
        try:
            status = _parse(text)
        except (ValueError, RecursionError):
            self._fail("not_json", "the payload is not JSON", None, origin)
            return None
        self._handle_status(status, text, is_edit=is_edit, received_at=received_at, origin=origin)
        return status

    def _handle_delete(self, event: StreamEvent, origin: str) -> None:
        self.summary.received += 1
        if not self._publish_delete(event.data.strip(), event.received_at, origin):
            # What is no id could be a whole post, of which nothing says that it may be kept.
            self._fail("bad_delete", "the payload is not an id", None, origin)

    def _handle_status(
        self,
        status: Any,
        text: str | None,
        *,
        is_edit: bool,
        received_at: datetime,
        origin: str,
    ) -> None:
        reason = self._rules.withheld_reason(
            status, instance=self._instance, suppression_list=self._suppression_list
        )
        if reason is not None:
            self._withhold(status, reason, is_edit=is_edit, received_at=received_at, origin=origin)
            return
        try:
            message = self._rules.to_message(
                status, instance=self._instance, received_at=received_at, origin=origin
            )
            self._publish_upsert(message)
        except DroppedError as error:
            self.summary.dropped[error.rule] += 1
            self._delete_if_stored(
                readable_id(status.get("id")), is_edit, received_at=received_at, origin=origin
            )
        except NormalizeError as error:
            self._fail("not_normalised", str(error), self._payload(status, text), origin)
        except ContractError as error:
            self._fail("contract", str(error), self._payload(status, text), origin)

    def _publish_upsert(self, message: Message) -> None:
        status_id, version = str(message["id"]), message["edited_at"] or _NEVER_EDITED
        if self._seen.has(status_id, version):
            self.summary.duplicates += 1
            return
        self._publisher.publish(message)
        self._seen.add(status_id, version)
        self._seen.add(status_id, _PUBLISHED)
        self.summary.upserts += 1

    def _withhold(
        self, status: Any, reason: str, *, is_edit: bool, received_at: datetime, origin: str
    ) -> None:
        status_id = readable_id(status.get("id")) if isinstance(status, Mapping) else None
        if status_id is not None and not is_edit and self._seen.has(status_id, reason):
            self.summary.duplicates += 1
            return
        self.summary.withheld[reason] += 1
        if reason == "unreadable":
            self._publish_error(reason, "consent cannot be read from the payload", None, origin)
        if reason == WITHDRAWN:
            return
        self._delete_if_stored(status_id, is_edit, received_at=received_at, origin=origin)
        if status_id is not None:
            self._seen.add(status_id, reason)

    def _delete_if_stored(
        self, status_id: str | None, is_edit: bool, *, received_at: datetime, origin: str
    ) -> None:
        """Of an edit nobody knows here whether its post is stored."""
        if status_id is not None and (is_edit or self._seen.has(status_id, _PUBLISHED)):
            self._publish_delete(status_id, received_at, origin)

    def _publish_delete(self, status_id: str, received_at: datetime, origin: str) -> bool:
        """False where `status_id` cannot be one."""
        message = to_delete(
            status_id, instance=self._instance, received_at=received_at, origin=origin
        )
        try:
            self._publisher.publish(message)
        except ContractError:
            return False
        self.summary.deletes += 1
        if self._seen.has(status_id, _PUBLISHED):
            self._seen.add(status_id, _DELETED)
        return True

    def _payload(self, status: Mapping[str, Any], text: str | None) -> str | None:
        """The document as it came, or as near to it as Mastodon.py leaves it, if it may be kept."""
        if not self._rules.keeps_payload(status, self._instance):
            return None
        return text if text is not None else json.dumps(status, default=_json_value)

    def _fail(self, reason: str, error: str, payload: str | None, origin: str) -> None:
        self.summary.errors[reason] += 1
        self._publish_error(reason, error, payload, origin)

    def _publish_error(self, reason: str, error: str, payload: str | None, origin: str) -> None:
        self._publisher.publish_error(
            reason=reason, error=error, payload=payload, origin=origin, instance=self._instance
        )

    def _origin(self, origin: str) -> str:
        return "simulator" if self._instance == _SIMULATED_INSTANCE else origin


class _Seen:
    """What was seen of the last `limit` posts of this run; older ones are forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A plain dict looks for its first key past all those that were taken away.
        self._notes: OrderedDict[str, set[str]] = OrderedDict()

    def has(self, status_id: str, note: str) -> bool:
        return note in self._notes.get(status_id, ())

    def add(self, status_id: str, note: str) -> None:
        self._notes.setdefault(status_id, set()).add(note)
        if len(self._notes) > self._limit:
            self._notes.popitem(last=False)

    def newest(self, note: str, *, without: str, limit: int) -> list[str]:
        """Ids with `note` and without `without`, the one met last first."""
        wanted = (
            status_id
            for status_id, notes in reversed(self._notes.items())
            if note in notes and without not in notes
        )
        return list(islice(wanted, limit))


def _parse(text: str) -> Any:
    """Raises: ValueError, RecursionError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson is right to refuse half of a surrogate pair; we keep such a post.
        return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json_value(value: object) -> str:
    return utc_text(value) if isinstance(value, datetime) and value.tzinfo else str(value)
