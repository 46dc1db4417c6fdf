"""Relabelling: changed NEUTRAL_LOW and NEUTRAL_HIGH applied to stored probabilities, by SQL.

What belongs here: the label rule of a two-class model in SQL, and its update in short transactions.
The same rule for Spark: `pipeline.label_str`.
"""

from collections.abc import Callable
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.config.settings import Settings
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import write_in_chunks
from mastodon_assets.warehouse.rollups import add_staged, mark_new_labels, subtract_staged
from mastodon_assets.warehouse.staging import STAGED_SCORES, with_staging

Report = Callable[[str], None]

_LABEL = """
CASE WHEN s.prob_pos >= %(high)s THEN 'positive'
     WHEN s.prob_pos <= %(low)s THEN 'negative' ELSE 'neutral' END
"""
# A three-class model knows what is neutral and has no thresholds.
_FIND = sql.SQL(
    """
SELECT s.id FROM masto.toots_sentiment s
  JOIN masto.sentiment_models m ON m.version = s.model_version
 WHERE NOT m.metrics ? 'classes' AND s.label_str <> {label}
 ORDER BY s.id
"""
).format(label=sql.SQL(_LABEL))
_STAGE = with_staging("INSERT INTO {staged_scores} (id) SELECT unnest(%s::bigint[])")
_UPDATE = with_staging(
    """
UPDATE masto.toots_sentiment s SET label_str = {label}
  FROM {staged_scores} staged, masto.sentiment_models m
 WHERE s.id = staged.id AND m.version = s.model_version
   AND NOT m.metrics ? 'classes' AND s.label_str <> {label}
""",
    label=sql.SQL(_LABEL),
)
_APPLIED = "SELECT parameters FROM masto.asset_progress WHERE asset = 'toots_sentiment'"


def thresholds(settings: Settings) -> str:
    """Return NEUTRAL_LOW and NEUTRAL_HIGH as the watermark of `toots_sentiment` records them."""
    return str({"neutral_low": settings.neutral_low, "neutral_high": settings.neutral_high})


def relabel(settings: Settings, report: Report) -> int:
    """Apply NEUTRAL_LOW and NEUTRAL_HIGH to stored scores if they changed; return rows changed.

    Only rows whose label changes are written, in chunks. An interrupted run continues where it
    ended.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: the database is not migrated.
    """
    values = {"low": settings.neutral_low, "high": settings.neutral_high}
    changed = 0
    with transaction(settings.postgres_url) as connection:
        applied = connection.execute(_APPLIED).fetchone()
        if applied is None or applied[0] == thresholds(settings):
            return 0
        with connection.cursor("to_relabel", withhold=True) as found:
            found.execute(_FIND, values)
            connection.commit()

            def write(most: int) -> int:
                nonlocal changed
                ids = [id_ for (id_,) in found.fetchmany(most)]
                changed += _relabel_chunk(connection, ids, values)
                return len(ids)

            write_in_chunks(connection, write)
    if changed:
        report(f"applied NEUTRAL_LOW and NEUTRAL_HIGH to {changed:,} posts")
    return changed


def _relabel_chunk(connection: Connection[Any], ids: list[int], values: dict[str, float]) -> int:
    STAGED_SCORES.create(connection)
    connection.execute(_STAGE, (ids,))
    subtract_staged(connection)
    changed = connection.execute(_UPDATE, values).rowcount
    add_staged(connection)
    if changed:
        mark_new_labels(connection)
    return changed
