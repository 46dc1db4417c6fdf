"""The table `masto.alerts`: reading and writing incidents."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from mastodon_assets.alerts.incidents import Changes, Delivery, Incident
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction
from mastodon_assets.warehouse.locks import ALERTS_LOCK

_NAMES = [each.name for each in fields(Incident)]
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _NAMES))
_SAVE = sql.SQL(
    "INSERT INTO masto.alerts ({columns}) VALUES ({values})"
    " ON CONFLICT (fact, since) DO UPDATE SET {changes}"
).format(
    columns=_COLUMNS,
    values=sql.SQL(", ").join([sql.Placeholder()] * len(_NAMES)),
    changes=sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
        for name in _NAMES
        if name not in ("fact", "since")
    ),
)


def is_alone(connection: Connection[Any]) -> bool:
    """Return whether no other process decides now; then none does until the connection closes."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (ALERTS_LOCK,)).fetchone()
    return row == (True,)


def read_unsettled(connection: Connection[Any]) -> list[Incident]:
    """Return the incidents that are not closed, or still due a message, oldest first."""
    return _read(connection, sql.SQL("settled_at IS NULL ORDER BY since, fact"))


def read_incidents(postgres_url: SecretStr, *, closed: int) -> list[Incident]:
    """Return the open incidents, and at most `closed` of those that closed last, newest first.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, snapshot=True, max_seconds=PERSON_SECONDS) as connection:
        current = _read(
            connection,
            sql.SQL("opened_at IS NOT NULL AND closed_at IS NULL ORDER BY opened_at DESC, fact"),
        )
        past = _read(
            connection,
            sql.SQL("closed_at IS NOT NULL ORDER BY closed_at DESC, fact LIMIT {}").format(
                sql.Literal(closed)
            ),
        )
    return [*current, *past]


def save(connection: Connection[Any], incidents: Sequence[Incident]) -> None:
    """Insert or replace incidents."""
    if incidents:
        with connection.cursor() as cursor:
            cursor.executemany(_SAVE, [_values(each) for each in incidents])


def apply(connection: Connection[Any], changes: Changes) -> None:
    """Store what a decision changed."""
    save(connection, changes.saved)
    for each in changes.forgotten:
        connection.execute(
            "DELETE FROM masto.alerts WHERE fact = %s AND since = %s", (each.fact, each.since)
        )


def _read(connection: Connection[Any], condition: sql.Composable) -> list[Incident]:
    with connection.cursor(row_factory=kwargs_row(_incident)) as cursor:
        query = sql.SQL("SELECT {} FROM masto.alerts WHERE {}").format(_COLUMNS, condition)
        return cursor.execute(query).fetchall()


def _incident(**values: Any) -> Incident:
    deliveries = {
        destination: Delivery(each["event"], datetime.fromisoformat(each["at"]))
        for destination, each in values["deliveries"].items()
    }
    return Incident(**{**values, "deliveries": deliveries})


def _values(incident: Incident) -> list[Any]:
    deliveries = {
        destination: {"event": each.event, "at": each.at.isoformat()}
        for destination, each in incident.deliveries.items()
    }
    values = {**vars(incident), "deliveries": Jsonb(deliveries)}
    return [values[name] for name in _NAMES]
