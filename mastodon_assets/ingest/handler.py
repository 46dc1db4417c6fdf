"""The event handler: what becomes of an event or a listed status.

What belongs here: the decision between an upsert, a delete, a dead letter and nothing, and the
counts. Where events come from is in `event_queue`.

A withheld post becomes a delete if it may be stored: at every `status.update`, and at an `update`
or a page of the timeline if this run has published the post before. A withheld post that is met for
the first time leaves nothing behind. A delete stays for ever and would list people who do not want
to be listed. If it is the account that refuses, its stored posts become deletes as well; the caller
finds them, see `refusing_accounts`.
"""

import json
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import orjson

from mastodon_assets.contract.identity import domain_form, full_handle, uri_host
from mastodon_assets.contract.messages import IMPORT, ContractError, Message
from mastodon_assets.contract.times import utc_text
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.api.software import UNKNOWN, Software
from mastodon_assets.ingest.api.status_ids import inner_post, readable_id
from mastodon_assets.ingest.domain_deletes import DomainDeletes
from mastodon_assets.ingest.homes import REFUSED_AT_HOME, Homes
from mastodon_assets.ingest.policy.admission import WITHDRAWN, AdmissionPolicy, DroppedError
from mastodon_assets.ingest.policy.consent import REFUSALS_OF_ACCOUNT
from mastodon_assets.ingest.policy.normalize import NormalizeError, to_delete
from mastodon_assets.ingest.stored_posts import PostAlias
from mastodon_assets.kafka.publisher import Publisher
from mastodon_assets.warehouse.suppression_list import SuppressionList

logger = logging.getLogger(__name__)

_SIMULATED_INSTANCE = "simulator.example"
# `status_update` is what mastodon_mock calls it.
_EDITS = frozenset({"status.update", "status_update"})
_REMEMBERED_POSTS = 100_000
_OTHER_TIMELINE = "other_timeline"
# Stored posts of an account that refuses are looked for again, because another process may not have
# heard of it, and the tables may be behind: after the first time, then at intervals that double.
_FIRST_LOOK_AGAIN_SECONDS, _LONGEST_LOOK_SECONDS = 60.0, 60 * 60.0
_MOST_ACCOUNTS = 1_000
_PUBLISHED, _DELETED, _NEVER_EDITED = "published", "deleted", "never edited"


class SuppressedServerError(PlatformError):
    """Raised if the server is on the suppression list: nothing may be read from it."""


@dataclass
class IngestSummary:
    """Counts of a run under the admission policy `rules`.

    `received` is the sum of `upserts`, `duplicates`, `withheld`, `dropped` (by filter rule),
    `errors`, and the deletes that the server sent or that were found missing. `deletes` counts the
    published ones, also those of withheld and dropped posts and of accounts that refuse. Posts
    withheld as `unreadable` are dead letters too. A dropped post is not remembered: from stream and
    timeline it counts twice. `other_timeline` in `dropped` are posts that a server listed though
    the source has none such. `ignored` are events of other kinds. `cursor` is the last one saved.
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
    """Publishes what each event or listed status becomes.

    `suppression_list` returns the present suppression list; whatever it raises ends the run.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        instance: str,
        policy: AdmissionPolicy,
        suppression_list: Callable[[], SuppressionList],
        software: Software = UNKNOWN,
        timeline: str = "public",
        homes: Homes | None = None,
    ) -> None:
        """Check that the server may be read.

        Args:
            publisher: Gets the messages.
            instance: The domain of the server.
            policy: What may be published.
            suppression_list: Returns the present suppression list.
            software: Fields that say nothing there are not read.
            timeline: The kind of the source; its other posts are dropped.
            homes: Shared by the sources of several servers.

        Raises:
            SuppressedServerError: `instance` is on the suppression list.
        """
        if suppression_list().matches(None, instance):
            raise SuppressedServerError(
                f"{instance} is on the suppression list, so nothing is read from it; set"
                " MASTODON_API_BASE_URL to another server"
            )
        self._publisher = publisher
        self._instance = instance
        self._policy = policy
        self._software = software
        self._timeline = timeline
        self._homes = homes
        self._read_suppression_list = suppression_list
        self._suppression_list = suppression_list()
        self._recent = _RecentPosts(_REMEMBERED_POSTS)
        self._domain_deletes = DomainDeletes(domain_form(instance))
        self._judged: OrderedDict[str, None] = OrderedDict()
        self._refusing = _RefusingAccounts(_REMEMBERED_POSTS)
        self.summary = IngestSummary(instance, str(policy))

    def remember(self, status_id: str, edited_at: datetime | None) -> None:
        """Note a version that an earlier run has published and the tables hold."""
        self._recent.add(status_id, _NEVER_EDITED if edited_at is None else utc_text(edited_at))
        self._recent.add(status_id, _PUBLISHED)

    def handle_event(self, event: StreamEvent) -> str | None:
        """Handle an event; return the post's id if it is an `update`, withheld or not."""
        with self._dead_letter_on_error("stream") as origin:
            return self._handle_event(event, origin)
        return None

    def handle_listed(self, status: Mapping[str, Any], received_at: datetime) -> None:
        """Handle a status of the timeline."""
        with self._dead_letter_on_error("backfill") as origin:
            self.summary.received += 1
            status = inner_post(status)
            if self._software.lists_wrongly(status, self._timeline, self._instance):
                self.summary.dropped[_OTHER_TIMELINE] += 1
                return
            self._handle_status(status, None, is_edit=False, received_at=received_at, origin=origin)

    def handle_recorded(self, line: bytes, received_at: datetime) -> None:
        """Handle a recorded status, one line of JSON in UTF-8."""
        with self._dead_letter_on_error(IMPORT) as origin:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                self.summary.received += 1
                self._fail("not_json", "the line is not UTF-8", None, origin)
                return
            self._handle_document(text, is_edit=False, received_at=received_at, origin=origin)

    def handle_gone(self, status_id: str, received_at: datetime) -> None:
        """Handle a post that the server does not have any more."""
        with self._dead_letter_on_error("backfill") as origin:
            self.summary.received += 1
            if self._recent.has(status_id, _DELETED):
                self.summary.duplicates += 1
            elif not self._publish_delete(status_id, received_at, origin):
                self._fail("bad_delete", "the payload is not an id", None, origin)

    def handle_home_answer(
        self, status_id: str, status: Mapping[str, Any] | None, received_at: datetime
    ) -> bool:
        """Handle what this server says of its own post that another server deleted.

        A post that it shows is published again, because only a later document brings it back.

        Returns:
            Whether something was published.
        """
        published = self.summary.upserts + self.summary.deletes
        with self._dead_letter_on_error("backfill") as origin:
            self.summary.received += 1
            self._recent.forget(status_id)
            if status is None:
                self._publish_delete(status_id, received_at, origin)
            else:
                self._handle_status(
                    status, None, is_edit=False, received_at=received_at, origin=origin
                )
        return self.summary.upserts + self.summary.deletes > published

    @property
    def own_domain(self) -> str:
        """The domain of the server's own accounts, as usernames of stored posts contain it."""
        return self._policy.stored_domain(self._instance)

    def refusing_accounts(self) -> list[str]:
        """Return the accounts seen to refuse whose stored posts are to be looked for now.

        An account is returned again a minute later, then after intervals that double up to an hour,
        as long as it refuses: posts may have been on their way to the tables.
        """
        if self._homes is not None:
            # Another process may have seen that it does not refuse any more.
            self._refusing.keep(self._homes.refuses, f"@{domain_form(self._instance)}")
        return self._refusing.due()

    def published_posts(self, accounts: Collection[str]) -> list[PostAlias]:
        """Return posts of accounts that refuse that may be on their way to the tables.

        All sources of this process have published them, like stored ones as this server says.
        """
        if self._homes is None:
            return []
        return self._homes.published.of_accounts(
            self._instance, accounts, own_domain=self.own_domain
        )

    def accounts_published(self, accounts: Collection[str]) -> set[str]:
        """Return those of the accounts that have posts which this process published."""
        return set() if self._homes is None else self._homes.published.accounts(accounts)

    def judged_accounts(self) -> list[str]:
        """Return the latest accounts whose posts were not withheld, as posts name them."""
        return list(self._judged)

    def handle_refused(
        self, accounts: Iterable[str], posts: Iterable[PostAlias], received_at: datetime
    ) -> None:
        """Publish deletes of the stored posts of accounts that refuse, or are gone."""
        with self._dead_letter_on_error("backfill") as origin:
            for post in posts:
                self._publish_delete(post.status_id, received_at, origin, instance=post.instance)
                if self._homes is not None:
                    self._homes.published.forget([post])
            self._refusing.settle(accounts)

    def published_ids(self, limit: int) -> list[str]:
        """Return the newest posts that this run has published and not deleted, newest first."""
        return self._recent.newest(_PUBLISHED, without=_DELETED, limit=limit)

    @contextmanager
    def _dead_letter_on_error(self, origin: str) -> Iterator[str]:
        """Turn an unexpected failure into a dead letter; yield the origin."""
        # Outside the try: a suppression list that cannot be read must end the run.
        self._suppression_list = self._read_suppression_list()
        origin = self._origin(origin)
        try:
            yield origin
        except Exception as error:  # noqa: BLE001 - a payload must not end the run
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
            # This could be a whole post, and nothing says that it may be kept.
            self._fail("bad_delete", "the payload is not an id", None, origin)
            return
        blocked = self._domain_deletes.note_delete(event.data.strip(), event.received_at)
        if blocked is not None:
            logger.warning(
                "%s: many posts of %s are deleted at once; the server has probably blocked it or"
                " suspended one of its accounts, and the posts may still exist there",
                self._instance,
                blocked,
            )

    def _handle_status(
        self,
        status: Any,
        text: str | None,
        *,
        is_edit: bool,
        received_at: datetime,
        origin: str,
    ) -> None:
        said = self._software.said(status)
        if said is not status:
            status, text = said, None
        reason = self._policy.withheld_reason(
            status, instance=self._instance, suppression_list=self._suppression_list
        )
        reason = self._reason_by_home(status, reason, is_live=origin != IMPORT)
        if reason is not None:
            self._withhold(status, reason, is_edit=is_edit, received_at=received_at, origin=origin)
            return
        try:
            message = self._policy.to_message(
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

    def _reason_by_home(self, status: Any, reason: str | None, *, is_live: bool) -> str | None:
        """Return why a status is withheld if it is known what the account's own server says.

        A recording (not `is_live`) says nothing of the present, not even one of that server.
        """
        if self._homes is None or not isinstance(status, Mapping):
            return reason
        handle = full_handle(status.get("account"), self._instance)
        if handle is None:
            return reason
        if is_live and handle.partition("@")[2] == domain_form(self._instance):
            self._homes.note_answer(handle, self._instance, reason)
            return reason
        return REFUSED_AT_HOME if reason is None and self._homes.refuses(handle) else reason

    def _publish_upsert(self, message: Message) -> None:
        status_id, version = str(message["id"]), message["edited_at"] or _NEVER_EDITED
        self._judged[message["username"]] = None
        if len(self._judged) > _MOST_ACCOUNTS:
            self._judged.popitem(last=False)
        if self._recent.has(status_id, version):
            self.summary.duplicates += 1
            return
        self._publisher.publish(message)
        self._recent.add(status_id, version)
        self._recent.add(status_id, _PUBLISHED)
        is_local = str(message["username"]).endswith(f"@{self.own_domain}")
        self._domain_deletes.note_post(status_id, message["uri"], is_local=is_local)
        if is_local and self._homes is not None and message["origin"] != IMPORT:
            uri = str(message["uri"])
            if (host := uri_host(uri)) is not None:
                has_ids = uri.rstrip("/").rpartition("/")[2] == status_id
                self._homes.note_name(self._instance, host, has_ids=has_ids)
        if self._homes is not None:
            self._homes.published.note(PostAlias(self._instance, status_id), message["username"])
        self._refusing.discard(message["username"])
        self.summary.upserts += 1

    def _withhold(
        self, status: Any, reason: str, *, is_edit: bool, received_at: datetime, origin: str
    ) -> None:
        status_id = readable_id(status.get("id")) if isinstance(status, Mapping) else None
        if status_id is not None and not is_edit and self._was_withheld(status_id, reason):
            self.summary.duplicates += 1
            return
        self.summary.withheld[reason] += 1
        if reason == "unreadable":
            self._publish_error(reason, "consent cannot be read from the payload", None, origin)
        if reason == WITHDRAWN:
            return
        if reason in REFUSALS_OF_ACCOUNT:
            account = self._policy.refusing_account(status, self._instance)
            handle = full_handle(status.get("account"), self._instance)
            if account is not None and handle is not None:
                self._refusing.add(account, handle)
        self._delete_if_stored(status_id, is_edit, received_at=received_at, origin=origin)
        if status_id is not None:
            self._recent.add(status_id, reason)

    def _was_withheld(self, status_id: str, reason: str) -> bool:
        """Return whether a post is known to be withheld, and was not published since."""
        is_stored = self._recent.has(status_id, _PUBLISHED) and not self._recent.has(
            status_id, _DELETED
        )
        return self._recent.has(status_id, reason) and not is_stored

    def _delete_if_stored(
        self, status_id: str | None, is_edit: bool, *, received_at: datetime, origin: str
    ) -> None:
        """Publish a delete if the post may be stored; for an edit this is unknown here."""
        if status_id is not None and (is_edit or self._recent.has(status_id, _PUBLISHED)):
            self._publish_delete(status_id, received_at, origin)

    def _publish_delete(
        self, status_id: str, received_at: datetime, origin: str, *, instance: str | None = None
    ) -> bool:
        """Publish a delete, by default of this server's post; return False if it is no id."""
        message = to_delete(
            status_id,
            instance=instance or self._instance,
            received_at=received_at,
            origin=origin,
        )
        try:
            self._publisher.publish(message)
        except ContractError:
            return False
        self.summary.deletes += 1
        if message["instance"] == self._instance and self._recent.has(status_id, _PUBLISHED):
            self._recent.add(status_id, _DELETED)
        return True

    def _payload(self, status: Mapping[str, Any], text: str | None) -> str | None:
        """Return the document as JSON text, or None if it may not be kept."""
        if not self._policy.keeps_payload(status, self._instance):
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


class _RecentPosts:
    """Notes about the last `limit` posts of this run; older ones are forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A plain dict finds its first key slowly after many removals.
        self._notes: OrderedDict[str, set[str]] = OrderedDict()

    def has(self, status_id: str, note: str) -> bool:
        """Return whether the post has the note."""
        return note in self._notes.get(status_id, ())

    def add(self, status_id: str, note: str) -> None:
        """Add a note to a post."""
        self._notes.setdefault(status_id, set()).add(note)
        if len(self._notes) > self._limit:
            self._notes.popitem(last=False)

    def forget(self, status_id: str) -> None:
        """Forget all notes of a post."""
        self._notes.pop(status_id, None)

    def newest(self, note: str, *, without: str, limit: int) -> list[str]:
        """Return ids with `note` and without `without`, the newest first."""
        found = (
            status_id
            for status_id, notes in reversed(self._notes.items())
            if note in notes and without not in notes
        )
        return list(islice(found, limit))


@dataclass
class _Look:
    """When stored posts of an account are looked for next, and how long it was between looks."""

    handle: str
    at: float = 0.0
    interval: float = 0.0


class _RefusingAccounts:
    """Accounts seen to refuse, by their names as stored; the oldest of more than `limit` go."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._looks: OrderedDict[str, _Look] = OrderedDict()

    def add(self, account: str, handle: str) -> None:
        """Add an account; its stored posts are to be looked for at once."""
        self._looks.setdefault(account, _Look(handle))
        if len(self._looks) > self._limit:
            self._looks.popitem(last=False)

    def discard(self, account: str) -> None:
        """Forget an account that does not refuse any more."""
        self._looks.pop(account, None)

    def due(self) -> list[str]:
        """Return the accounts whose stored posts are to be looked for, at most a thousand."""
        now = time.monotonic()
        due = (account for account, look in self._looks.items() if look.at <= now)
        return list(islice(due, _MOST_ACCOUNTS))

    def settle(self, accounts: Iterable[str]) -> None:
        """Note that the stored posts of these accounts were looked for."""
        for account in accounts:
            if (look := self._looks.get(account)) is not None:
                look.interval = min(
                    max(2 * look.interval, _FIRST_LOOK_AGAIN_SECONDS), _LONGEST_LOOK_SECONDS
                )
                look.at = time.monotonic() + look.interval

    def keep(self, refuses: Callable[[str], bool], own: str) -> None:
        """Forget the due accounts of this server, whose handles end in `own`, that agree now."""
        for account in self.due():
            handle = self._looks[account].handle
            if handle.endswith(own) and not refuses(handle):
                self.discard(account)


def _parse(text: str) -> Any:
    """Parse JSON; raise ValueError or RecursionError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson refuses half of a surrogate pair; such a post is kept.
        return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json_value(value: object) -> str:
    return utc_text(value) if isinstance(value, datetime) and value.tzinfo else str(value)
