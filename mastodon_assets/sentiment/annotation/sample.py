"""The sample: stored posts drawn at random for people to label.

What belongs here: the draw, and the rows of `annotation_sample`. A post is in at most one draw. The
strata: `allocation`.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.annotation.allocation import (
    Stratum,
    allocate,
    group_languages,
    strata_sizes,
)
from mastodon_assets.sentiment.annotation.labels import LANGUAGE
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock

# Posts whose label may be right or wrong; for training also posts of languages without a label.
_CANDIDATES = sql.SQL(
    """
SELECT r.id, {language} AS language,
       s.label_str AS label, s.prob_pos
  FROM masto.toots_raw r
  LEFT JOIN masto.toots_sentiment s USING (id)
 WHERE r.event_at >= %(since)s
   AND r.content_txt <> ''
   AND (s.label_str IS NOT NULL OR (%(is_training)s AND s.reason IS DISTINCT FROM 'no_words'))
   AND NOT EXISTS (SELECT FROM masto.annotation_sample a WHERE a.id = r.id)
"""
).format(language=LANGUAGE)
_COUNT = sql.SQL(
    """
SELECT language, label, count(*) FROM ({candidates}) c
 WHERE %(languages)s::text[] IS NULL OR language = ANY(%(languages)s)
 GROUP BY 1, 2
"""
).format(candidates=_CANDIDATES)
_DRAW = sql.SQL(
    """
WITH grouped AS (
    SELECT c.id, c.label, c.prob_pos, g.name
      FROM ({candidates}) c
      JOIN unnest(%(members)s::text[], %(groups)s::text[]) g (language, name) USING (language)
), halved AS (
    SELECT id, name, label,
           CASE WHEN label IS NULL THEN 1
                ELSE ntile(2) OVER (PARTITION BY name, label ORDER BY prob_pos, id) END AS half
      FROM grouped
), shuffled AS (
    SELECT *, row_number() OVER (PARTITION BY name, label, half ORDER BY random()) AS place
      FROM halved
)
SELECT s.id, s.name, s.label, s.half
  FROM shuffled s
  JOIN unnest(%(names)s::text[], %(labels)s::text[], %(halves)s::int[], %(drawn)s::int[])
       w (name, label, half, drawn)
    ON s.name = w.name AND s.label IS NOT DISTINCT FROM w.label AND s.half = w.half
   AND s.place <= w.drawn
"""
).format(candidates=_CANDIDATES)
# A post may have been deleted since it was drawn.
_ADD = """
INSERT INTO masto.annotation_sample (id, drawn_at, stratum_posts, place, is_training, stratum)
SELECT d.id, %(now)s, d.stratum_posts, d.place, %(is_training)s, d.stratum
  FROM unnest(%(ids)s::bigint[], %(stratum_posts)s::bigint[], %(strata)s::text[])
       WITH ORDINALITY d (id, stratum_posts, stratum, place)
  JOIN masto.toots_raw USING (id)
    ON CONFLICT (id) DO NOTHING
RETURNING stratum
"""
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class AnnotationError(PlatformError):
    """There is nothing to draw, to label or to evaluate."""


@dataclass(frozen=True)
class Draw:
    """What was drawn: posts by stratum, out of `posts` that could have been."""

    drawn: Mapping[str, int]
    posts: int


def draw_sample(
    postgres_url: SecretStr,
    size: int,
    *,
    languages: Sequence[str] | None = None,
    days: int | None = None,
    is_training: bool = False,
) -> Draw:
    """Draw posts at random, stratified by language, label and probability, and add them.

    Args:
        postgres_url: DATABASE_URL, of a role that writes posts.
        size: Number of posts; all are taken if there are not more.
        languages: First parts of declared languages; None for all.
        days: Only posts of the last days; None for all.
        is_training: Whether the labels will train models. Then posts without a label of the model
            may be drawn too, unless they have no words.

    Raises:
        AnnotationError: There is no such post.
        SettingsError: The size is too small for the number of strata.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    now = datetime.now(UTC)
    parameters = {
        "since": now - timedelta(days=days) if days is not None else _BEGINNING,
        "is_training": is_training,
        "languages": [each.lower() for each in languages] if languages is not None else None,
    }
    with transaction(postgres_url, snapshot=True) as connection:
        counts = {
            (language, label): count
            for language, label, count in connection.execute(_COUNT, parameters)
        }
        if not counts:
            raise AnnotationError(_nothing_to_draw(is_training))
        by_language: Counter[str] = Counter()
        for (language, _), count in counts.items():
            by_language[language] += count
        groups = group_languages(by_language)
        sizes = strata_sizes(counts, groups)
        found = _find(connection, groups, allocate(sizes, size), parameters)
    # Coders who label only a part then all have a random part, and the same one.
    random.SystemRandom().shuffle(found)
    with transaction(postgres_url) as connection:
        take_write_lock(connection)
        added = connection.execute(
            _ADD,
            {
                "now": now,
                "is_training": is_training,
                "ids": [id_ for id_, _ in found],
                "stratum_posts": [sizes[stratum] for _, stratum in found],
                "strata": [stratum.name for _, stratum in found],
            },
        ).fetchall()
    return Draw(dict(sorted(Counter(name for (name,) in added).items())), sum(counts.values()))


def remove_unlabelled(postgres_url: SecretStr) -> int:
    """Remove the posts that nobody has labelled yet from the sample; return their number."""
    return _delete(
        postgres_url,
        "DELETE FROM masto.annotation_sample s"
        " WHERE NOT EXISTS (SELECT FROM masto.annotations a WHERE a.id = s.id)",
    )


def remove_everything(postgres_url: SecretStr) -> int:
    """Remove all drawn posts with all labels; return the number of posts."""
    return _delete(postgres_url, "DELETE FROM masto.annotation_sample")


def _delete(postgres_url: SecretStr, statement: LiteralString) -> int:
    with transaction(postgres_url) as connection:
        return connection.execute(statement).rowcount


def _find(
    connection: Connection[Any],
    groups: Mapping[str, str],
    drawn: Mapping[Stratum, int],
    parameters: Mapping[str, Any],
) -> list[tuple[int, Stratum]]:
    strata = list(drawn)
    rows = connection.execute(
        _DRAW,
        {
            **parameters,
            "members": list(groups),
            "groups": list(groups.values()),
            "names": [stratum.language for stratum in strata],
            "labels": [stratum.label for stratum in strata],
            "halves": [stratum.half for stratum in strata],
            "drawn": list(drawn.values()),
        },
    )
    return [(id_, Stratum(name, label, half)) for id_, name, label, half in rows]


def _nothing_to_draw(is_training: bool) -> str:
    if is_training:
        return "there is no post to draw that is not drawn yet; check --languages and --days"
    return (
        "there is no post with a label of the model that is not drawn yet; check --languages and"
        " --days, or materialize toots_sentiment (mastodon-assets ui)"
    )
