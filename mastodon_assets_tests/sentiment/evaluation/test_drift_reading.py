"""Reading the scores that drift is found in."""

from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.sentiment.evaluation.drift import read_scores
from mastodon_assets.warehouse.database import transaction

_TRAINED_AT = datetime(2026, 11, 20, tzinfo=UTC)
_OLD, _NEW = 30_000, 600


def _add(connection: Connection[Any], version: str, first: int, rows: int, since: datetime) -> None:
    connection.execute(
        "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, prob_pos, label_bin, lang,"
        " label_str, model_version, text)"
        " SELECT n, %(since)s, %(since)s + n * interval '1 second', 0.9, 1, 'en', 'positive',"
        " %(version)s, 'text ' || n FROM generate_series(%(first)s::bigint, %(last)s::bigint) n",
        {"version": version, "first": first, "last": first + rows - 1, "since": since},
    )


def _rows_touched(connection: Connection[Any]) -> int:
    row = connection.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relid = 'masto.toots_sentiment'::regclass"
    ).fetchone()
    return int(row[0]) if row else 0


def test_the_rows_of_earlier_models_are_not_looked_through(fresh_database_url: SecretStr) -> None:
    with transaction(fresh_database_url) as connection:
        _add(connection, "earlier", 1, _OLD, _TRAINED_AT - timedelta(days=30))
        _add(connection, "champion", _OLD + 1, _NEW, _TRAINED_AT)
        connection.execute("ANALYZE masto.toots_sentiment")
    with transaction(fresh_database_url, snapshot=True) as connection:
        first, newest = read_scores(connection, "champion", _TRAINED_AT)
        touched = _rows_touched(connection)
    assert (len(first), len(newest)) == (_NEW // 2, _NEW // 2)
    assert first[0].text == f"text {_OLD + 1}"
    assert newest[0].text == f"text {_OLD + _NEW}"
    assert touched <= 3 * _NEW
