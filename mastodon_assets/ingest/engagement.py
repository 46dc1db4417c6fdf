"""Engagement: posts are read again from their server an hour and a day after they were posted.

What belongs here: which posts are due, the requests for them, and `masto.toots_engagement`.
Readings do not go through Kafka: they do not change a status, and a lost one is made again. What
they show to be gone or refused does: its deletes are published before the readings are stored.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.config.servers import Server, servers_of
from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.identity import domain_form, full_handle
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.api.client import MOST_IDS, NOT_SERVED_BY_IDS, MastodonClient, client_of
from mastodon_assets.ingest.api.errors import RateLimitedError, RefusedError
from mastodon_assets.ingest.api.status_ids import readable_id
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.policy.admission import AdmissionPolicy, admission_policy
from mastodon_assets.ingest.policy.consent import (
    REFUSALS_OF_ACCOUNT,
    REFUSALS_OF_POST,
    withheld_reason,
)
from mastodon_assets.ingest.removal_brake import RemovalBrake
from mastodon_assets.ingest.stored_posts import PostAlias, posts_of_accounts, publish_deletes
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock

# A token has 300 requests in five minutes (rack_attack.rb), and the ingester needs most of them.
# This runs once per minute at most. Posts that are not shown are asked for one by one with the
# requests that are left of all.
_MOST_REQUESTS, _MOST_REQUESTS_IN_ALL = 30, 40
# Nobody waits longer for a slow server.
_LONGEST_SECONDS = 60
# After this delay a reading counts as overdue.
_OVERDUE_AFTER = timedelta(hours=2)
_LARGEST = 2**31 - 1
# What other software answers to a request of posts by ids.
_NOT_SERVED = (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED)

# Each reading with the ages at which it is due and at which it is too old. The widest range is
# repeated so that the planner uses the index for it.
_DUE = """
  FROM (VALUES (1::smallint, interval '1 hour', interval '24 hours'),
               (24::smallint, interval '24 hours', interval '7 days')) d (due_hours, due, too_old)
  JOIN masto.toots_raw t
    ON t.instance = ANY (%(instances)s)
   AND t.event_at <= %(now)s - d.due AND t.event_at > %(now)s - d.too_old
   AND t.event_at <= %(now)s - interval '1 hour' AND t.event_at > %(now)s - interval '7 days'
 WHERE NOT EXISTS (SELECT FROM masto.toots_engagement e
                    WHERE e.id = t.id AND e.due_hours = d.due_hours)
"""
# The latest due comes first: if there are more than the limits allow, most are still read in time.
# With the oldest first all of them would be late.
_NEXT_DUE = f"""
SELECT t.id, t.status_id, d.due_hours, split_part(t.username, '@', 2) = %(own_domain)s AS is_home
{_DUE} ORDER BY t.event_at + d.due DESC, t.id LIMIT %(limit)s
"""
_COUNT_OVERDUE = f"SELECT count(*) {_DUE} AND t.event_at + d.due < %(now)s - %(late)s"
_IS_ANY_DUE = f"SELECT EXISTS (SELECT {_DUE})"

# A post that was deleted in the meantime gets no reading.
_STORE = """
INSERT INTO masto.toots_engagement (id, due_hours, read_at, favourites, reblogs, replies)
SELECT t.id, %s, %s, %s, %s, %s FROM masto.toots_raw t WHERE t.id = %s
    ON CONFLICT (id, due_hours) DO NOTHING
"""


@dataclass(frozen=True)
class _Due:
    """A reading to be made: row of the table, id at the server, and age in hours.

    `is_home` says that the account is one of this server, which alone knows that a post is gone.
    """

    id: int
    status_id: str
    due_hours: int
    is_home: bool


@dataclass
class ServerReadings:
    """The readings of one server.

    `read` counts readings with numbers. `unseen` counts posts that the server did not show or that
    may not be read any more. `removed` counts the stored posts that are deleted for it: they are
    gone, not public any more, or of accounts that refuse. `overdue` counts readings that were due
    more than two hours ago and still wait. `problem` says why reading ended early; None if it did
    not.
    """

    server: str
    read: int = 0
    unseen: int = 0
    removed: int = 0
    overdue: int = 0
    problem: str | None = None


def read_engagement(settings: Settings) -> list[ServerReadings]:
    """Read what is due from the servers of the settings, within the rate limits.

    A post that the server does not show gets a reading without numbers. It may be hidden for other
    reasons, so it is asked for alone, and is deleted if its own server says that it does not exist.
    A post that is shown and may not be read any more is deleted; if it is the account that refuses,
    all its posts are. What an account's own server shows of its consent is recorded, for posts from
    elsewhere. If a server does not answer or limits the rate, its other readings wait for the next
    run, and so do those of a server whose deletes Kafka does not accept.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
        SettingsError: Servers, sources and tokens do not fit together.
    """
    servers = servers_of(settings)
    homes = Homes(settings.postgres_url, are_several=len(servers) > 1)
    return [_read_server(settings, server, homes) for server in servers]


def is_any_due(settings: Settings) -> bool:
    """Return whether a reading is due for any server that was ever ingested from.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(settings.postgres_url, snapshot=True) as connection:
        servers = connection.execute("SELECT DISTINCT instance FROM masto.ingest_cursors")
        instances = [instance for (instance,) in servers]
        row = connection.execute(_IS_ANY_DUE, _at_present(instances)).fetchone()
    return row == (True,)


def _read_server(settings: Settings, server: Server, homes: Homes) -> ServerReadings:
    result = ServerReadings(server.address)
    try:
        client = client_of(settings, server)
        result.server = client.instance_domain()
    except PlatformError as error:
        result.problem = str(error)
        return result
    most_posts = None if client.is_on_this_machine else _MOST_REQUESTS * MOST_IDS
    policy = admission_policy(settings)
    own_domain = policy.stored_domain(result.server)
    waiting = _next_due(settings.postgres_url, result.server, own_domain, most_posts)
    answers = _Answers(result.server, policy, homes)
    homes.load()
    result.problem = answers.request(client, waiting)
    # Before the posts go: a later one would be stored again from elsewhere.
    homes.save()
    removed, held = answers.posts_to_remove(settings, own_domain)
    result.problem = held or result.problem
    try:
        if removed:
            publish_deletes(settings, removed)
    except PlatformError as error:
        result.problem = str(error)
        return result
    readings, result.removed = answers.readings, len(removed)
    with transaction(settings.postgres_url) as connection:
        take_write_lock(connection)
        _store(connection, readings)
        result.overdue = _overdue(connection, result.server)
    result.read = sum(counts is not None for _, _, counts in readings)
    result.unseen = len(readings) - result.read
    return result


_Reading = tuple[_Due, datetime, tuple[int | None, ...] | None]


class _Answers:
    """What one server answers: readings, and what is gone or refused."""

    def __init__(self, server: str, policy: AdmissionPolicy, homes: Homes) -> None:
        self._server = server
        self._policy = policy
        self._homes = homes
        self._gone: list[PostAlias] = []
        self._refusing: set[str] = set()
        self.readings: list[_Reading] = []

    def request(self, client: MastodonClient, waiting: Sequence[_Due]) -> str | None:
        """Request the posts that are due; return why not all were requested, if so."""
        deadline = time.monotonic() + _LONGEST_SECONDS
        requests_left = _MOST_REQUESTS_IN_ALL - math.ceil(len(waiting) / MOST_IDS)
        for first in range(0, len(waiting), MOST_IDS):
            if time.monotonic() > deadline:
                return f"{len(waiting) - first} readings wait: the server is slow"
            batch = waiting[first : first + MOST_IDS]
            try:
                statuses = client.statuses([due.status_id for due in batch])
            except RefusedError as error:
                return NOT_SERVED_BY_IDS if error.status_code in _NOT_SERVED else str(error)
            except PlatformError as error:
                return str(error)
            now = datetime.now(UTC)
            shown = {
                readable_id(status.get("id")): status
                for status in statuses
                if isinstance(status, Mapping)
            }
            hidden = [due for due in batch if due.is_home and due.status_id not in shown]
            singles = hidden[: max(0, requests_left)]
            requests_left -= len(singles)
            problem = self._ask_one_by_one(client, singles, shown)
            for due in batch:
                self.readings.append((due, now, self._counts(shown.get(due.status_id))))
            if problem is not None:
                return problem
        return None

    def _ask_one_by_one(
        self,
        client: MastodonClient,
        hidden: Sequence[_Due],
        shown: dict[str | None, Mapping[str, Any]],
    ) -> str | None:
        """Note which of the posts are gone, and add the others; return why not all were asked."""
        for due in hidden:
            try:
                status = client.status(due.status_id)
            except RateLimitedError as error:
                return str(error)
            except RefusedError:
                # This says nothing about the post.
                continue
            except PlatformError as error:
                return str(error)
            if status is None:
                self._gone.append(PostAlias(self._server, due.status_id))
            else:
                shown[due.status_id] = status
        return None

    def posts_to_remove(
        self, settings: Settings, own_domain: str
    ) -> tuple[Sequence[PostAlias], str | None]:
        """Return the stored posts that are gone, withheld by now, or of accounts that refuse.

        Returns:
            The posts, and why none is removed if too many of the posts that were asked for would
            go at once.
        """
        if not self.readings:
            return [], None
        url = settings.postgres_url
        brake = RemovalBrake(
            url,
            self._server,
            share=settings.removal_brake_share,
            fewest=settings.removal_brake_min,
        )
        going = [post.status_id for post in self._gone]
        passed = brake.passed(going, asked=len(self.readings))
        if going and not passed:
            return [], (
                f"{len(going)} posts are not removed: {brake.reason}; if that is right, run:"
                f" mastodon-assets sources accept {self._server}"
            )
        of_accounts = (
            posts_of_accounts(url, self._server, self._refusing, own_domain=own_domain)
            if self._refusing
            else []
        )
        return list(dict.fromkeys([*self._gone, *of_accounts])), None

    def _counts(self, status: Mapping[str, Any] | None) -> tuple[int | None, ...] | None:
        """Return favourites, boosts and replies of a status that may be read."""
        if status is None:
            return None
        reason = withheld_reason(status, policy=self._policy.consent)
        self._note_answer(status, reason)
        if reason is None:
            names = ("favourites_count", "reblogs_count", "replies_count")
            return tuple(_count(status, name) for name in names)
        if reason in REFUSALS_OF_POST | REFUSALS_OF_ACCOUNT:
            self._gone.append(PostAlias(self._server, str(readable_id(status.get("id")))))
        if reason in REFUSALS_OF_ACCOUNT:
            account = self._policy.refusing_account(status, self._server)
            if account is not None:
                self._refusing.add(account)
        return None

    def _note_answer(self, status: Mapping[str, Any], reason: str | None) -> None:
        handle = full_handle(status.get("account"), self._server)
        if handle is not None and handle.partition("@")[2] == domain_form(self._server):
            self._homes.note_answer(handle, self._server, reason)


def _count(status: Mapping[str, Any], name: str) -> int | None:
    value = status.get(name)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    return value if is_count else None


def _next_due(
    postgres_url: SecretStr, instance: str, own_domain: str, limit: int | None
) -> list[_Due]:
    parameters = {**_at_present([instance]), "own_domain": own_domain, "limit": limit}
    with transaction(postgres_url, snapshot=True) as connection:
        rows = connection.execute(_NEXT_DUE, parameters).fetchall()
    return [_Due(*row) for row in rows]


def _store(connection: Connection[Any], readings: Iterable[_Reading]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            _STORE,
            [
                (due.due_hours, at, *(counts or (None, None, None)), due.id)
                for due, at, counts in readings
            ],
        )


def _overdue(connection: Connection[Any], instance: str) -> int:
    row = connection.execute(
        _COUNT_OVERDUE, {**_at_present([instance]), "late": _OVERDUE_AFTER}
    ).fetchone()
    assert row is not None
    return int(row[0])


def _at_present(instances: list[str]) -> dict[str, Any]:
    return {"instances": instances, "now": datetime.now(UTC)}
