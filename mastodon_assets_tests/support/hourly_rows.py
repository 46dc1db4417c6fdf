"""The rows of the hourly tables, counted by hand from posts, scores and tombstones."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.daily import DAILY_SUMS
from mastodon_assets.warehouse.sum_tables import names_of
from mastodon_assets.warehouse.tables import TABLES
from mastodon_assets_tests.support.merge_sink import Sink

_CLASSES = (
    timedelta(minutes=1),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta.max,
)


def hourly_rows(sink: Sink) -> dict[str, list[dict[str, Any]]]:
    """Table to its rows in the order of its key."""
    posts = [
        {
            "hour": _hour(event_at),
            "instance": instance,
            "lang": lang,
            "username": username,
            "hashtags": hashtags,
            "lateness": received_at - newest_at,
            "outcome": outcome,
            # As many digits as PostgreSQL's cast keeps.
            "prob": Decimal(0 if prob is None else f"{prob:.15g}"),
        }
        for event_at, instance, lang, username, hashtags, received_at, newest_at, outcome, prob in (
            sink.rows(
                "SELECT event_at, instance, r.lang, username, hashtags, received_at,"
                " greatest(r.created_at, edited_at), coalesce(label_str, reason, 'not_scored'),"
                " prob_pos FROM masto.toots_raw r LEFT JOIN masto.toots_sentiment s USING (id)"
            )
        )
    ]
    uses = [post | {"hashtag": hashtag} for post in posts for hashtag in post["hashtags"]]
    aliases = set(sink.rows("SELECT instance, status_id FROM masto.toot_aliases"))
    deletes = [
        {"hour": _hour(at), "instance": instance, "is_stored": (instance, status_id) in aliases}
        for instance, status_id, at in sink.rows("TABLE masto.toots_deleted")
    ]
    return {
        name: _counted(rows, TABLES[name].key, count)
        for name, rows, count in (
            ("hourly_activity", posts, _activity),
            ("hourly_sentiment", posts, _sentiment),
            ("hourly_hashtags", uses, _hashtags),
            ("hourly_hashtag_accounts", uses, _accounts),
            ("hourly_deletes", deletes, _deletes),
        )
    }


def stored_rows(sink: Sink, name: str) -> list[dict[str, Any]]:
    """The rows of a table in the order of its key."""
    table = TABLES[name]
    columns = ", ".join(table.column_names)
    found = sink.rows(f"SELECT {columns} FROM masto.{name} ORDER BY {', '.join(table.key)}")  # noqa: S608 - constants
    return [dict(zip(table.column_names, row, strict=True)) for row in found]


def daily_rows(sink: Sink) -> dict[str, list[dict[str, Any]]]:
    """Table of daily sums to its rows in the order of its key, added up from the stored hours."""
    return {
        daily.sums.table.name: _counted(
            [
                row | {"day": row["hour"].astimezone(UTC).date()}
                for row in stored_rows(sink, daily.hourly.name)
            ],
            daily.sums.table.key,
            partial(_summed, daily.sums.sums),
        )
        for daily in DAILY_SUMS
    }


def sum_days(connection: Connection[Any]) -> None:
    """Bring the daily sums to hours that a test has inserted."""
    for daily in DAILY_SUMS:
        table, columns = daily.sums.identifier, names_of(daily.sums.columns)
        connection.execute(sql.SQL("DELETE FROM {}").format(table))
        connection.execute(
            sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM ({2}) summed").format(
                table, columns, daily.of_all_hours()
            )
        )


def all_hours_of(sink: Sink) -> list[datetime]:
    """The hours that have posts or deletes."""
    found = sink.rows(
        "SELECT event_at FROM masto.toots_raw UNION SELECT deleted_at FROM masto.toots_deleted"
    )
    return sorted({_hour(at) for (at,) in found})


def _counted(
    rows: Iterable[dict[str, Any]],
    key: tuple[str, ...],
    count: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> list[dict[str, Any]]:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in key)].append(row)
    return [
        dict(zip(key, names, strict=True)) | count(group) for names, group in sorted(groups.items())
    ]


def _accounts(posts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"accounts_count": len({post["username"] for post in posts})}


def _activity(posts: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("received_1m", "received_10m", "received_1h", "received_1d", "received_later")
    received = dict.fromkeys(names, 0)
    for post in posts:
        place = next(n for n, longest in enumerate(_CLASSES) if post["lateness"] <= longest)
        received[names[place]] += 1
    return {"toots_count": len(posts), **_accounts(posts), **received}


def _sentiment(posts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "toots_count": len(posts),
        "total_prob_pos": sum((post["prob"] for post in posts), Decimal(0)),
    }


def _hashtags(posts: list[dict[str, Any]]) -> dict[str, Any]:
    labels = {"n_pos": "positive", "n_neu": "neutral", "n_neg": "negative"}
    counts = {
        name: sum(post["outcome"] == label for post in posts) for name, label in labels.items()
    }
    return {"toots_count": len(posts), **_accounts(posts), **counts}


def _deletes(deletes: list[dict[str, Any]]) -> dict[str, Any]:
    stored = sum(delete["is_stored"] for delete in deletes)
    return {"deletes_count": len(deletes), "stored_count": stored}


def _summed(names: Iterable[str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(row[name] for row in rows) for name in names}


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
