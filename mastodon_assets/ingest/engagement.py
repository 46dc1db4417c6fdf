"""Engagement: posts are read again from their server an hour and a day after they were posted.

What belongs here: which posts are due, the requests for them, and `masto.toots_engagement`.
Readings do not go through Kafka: they do not change a status, and a lost one is made again.
"""

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
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.api.client import MOST_IDS, NOT_SERVED_BY_IDS, MastodonClient, client_of
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.status_ids import readable_id
from mastodon_assets.ingest.policy.consent import ConsentPolicy, withheld_reason
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock

# A token has 300 requests in five minutes (rack_attack.rb), and the ingester needs most of them.
# This runs once per minute at most.
_MOST_REQUESTS = 30
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
SELECT t.id, t.status_id, d.due_hours {_DUE} ORDER BY t.event_at + d.due DESC, t.id LIMIT %(limit)s
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
    """A reading to be made: row of the table, id at the server, and age in hours."""

    id: int
    status_id: str
    due_hours: int


@dataclass
class ServerReadings:
    """The readings of one server.

    `read` counts readings with numbers. `unseen` counts posts that the server did not show or that
    may not be read any more. `overdue` counts readings that were due more than two hours ago and
    still wait. `problem` says why reading ended early; None if it did not.
    """

    server: str
    read: int = 0
    unseen: int = 0
    overdue: int = 0
    problem: str | None = None


def read_engagement(settings: Settings) -> list[ServerReadings]:
    """Read what is due from the servers of the settings, within the rate limits.

    A post that the server does not show gets a reading without numbers. It is not deleted, because
    it may be hidden for other reasons, and it is asked for again when its next reading is due. If a
    server does not answer or limits the rate, its other readings wait for the next run.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
        SettingsError: Servers, sources and tokens do not fit together.
    """
    return [_read_server(settings, server) for server in servers_of(settings)]


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


def _read_server(settings: Settings, server: Server) -> ServerReadings:
    result = ServerReadings(server.address)
    try:
        client = client_of(settings, server)
        result.server = client.instance_domain()
    except PlatformError as error:
        result.problem = str(error)
        return result
    most_posts = None if client.is_on_this_machine else _MOST_REQUESTS * MOST_IDS
    waiting = _next_due(settings.postgres_url, result.server, most_posts)
    readings, result.problem = _request(client, waiting, settings.mastodon_consent)
    with transaction(settings.postgres_url) as connection:
        take_write_lock(connection)
        _store(connection, readings)
        result.overdue = _overdue(connection, result.server)
    result.read = sum(counts is not None for _, _, counts in readings)
    result.unseen = len(readings) - result.read
    return result


_Reading = tuple[_Due, datetime, tuple[int | None, ...] | None]


def _request(
    client: MastodonClient, waiting: Sequence[_Due], policy: ConsentPolicy
) -> tuple[list[_Reading], str | None]:
    """Return the readings with their times, and why not all were requested, if so."""
    readings: list[_Reading] = []
    deadline = time.monotonic() + _LONGEST_SECONDS
    for first in range(0, len(waiting), MOST_IDS):
        if time.monotonic() > deadline:
            return readings, f"{len(waiting) - first} readings wait: the server is slow"
        batch = waiting[first : first + MOST_IDS]
        try:
            statuses = client.statuses([due.status_id for due in batch])
        except RefusedError as error:
            is_too_old = error.status_code in (
                httpx.codes.NOT_FOUND,
                httpx.codes.METHOD_NOT_ALLOWED,
            )
            return readings, NOT_SERVED_BY_IDS if is_too_old else str(error)
        except PlatformError as error:
            return readings, str(error)
        now = datetime.now(UTC)
        shown = _counts_by_id(statuses, policy)
        readings.extend((due, now, shown.get(due.status_id)) for due in batch)
    return readings, None


def _counts_by_id(
    statuses: Iterable[Any], policy: ConsentPolicy
) -> dict[str, tuple[int | None, ...]]:
    """Return favourites, boosts and replies of the statuses that may be read."""
    counts = {}
    for status in statuses:
        if withheld_reason(status, policy=policy) is not None:
            continue
        status_id = readable_id(status.get("id"))
        if status_id is not None:
            names = ("favourites_count", "reblogs_count", "replies_count")
            counts[status_id] = tuple(_count(status, name) for name in names)
    return counts


def _count(status: Mapping[str, Any], name: str) -> int | None:
    value = status.get(name)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    return value if is_count else None


def _next_due(postgres_url: SecretStr, instance: str, limit: int | None) -> list[_Due]:
    with transaction(postgres_url, snapshot=True) as connection:
        rows = connection.execute(_NEXT_DUE, {**_at_present([instance]), "limit": limit}).fetchall()
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
