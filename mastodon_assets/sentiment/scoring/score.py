"""Scores of posts: the label rule, and the refresh of `toots_sentiment`.

What belongs here: from a probability to a label, which posts wait for a score, and writing each
score for the version of the post that was scored. Importing it loads no Spark: a refresh in which
no post waits needs none.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.models.registry import Model, champion
from mastodon_assets.sentiment.scoring.relabel import relabel, thresholds
from mastodon_assets.spark.jvm_end import jvm_end_explained
from mastodon_assets.spark.storage import for_executors
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import write_ranges
from mastodon_assets.warehouse.rollups import add_staged, mark_new_labels, subtract_staged
from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.staging import STAGED_SCORES, with_staging
from mastodon_assets.warehouse.watermarks import set_watermark, toots_version

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from mastodon_assets.sentiment.models.store import LoadedModel

Report = Callable[[str], None]

# Characters. A longer text is scored by its beginning, wherever it comes from: it would keep a task
# busy for minutes.
MAX_SCORED = 10_000
# Scored at once.
_ROWS_PER_CHUNK = 50_000

# A new champion scores posts that were scored without a model; with `rescore` also those that
# another model scored.
_FIND_PENDING = """
SELECT r.id
  FROM {toots} r LEFT JOIN masto.toots_sentiment s ON s.id = r.id
 WHERE s.id IS NULL
    OR (s.reason = 'no_model' AND %(champion)s::text IS NOT NULL)
    OR (%(rescore)s AND s.model_version IS DISTINCT FROM %(champion)s)
    OR (s.text, s.lang, s.created_at) IS DISTINCT FROM (r.content_txt, r.lang, r.created_at)
 ORDER BY r.id
"""
_READ_TOOTS = """
SELECT id, payload_hash, created_at, lang, content_txt FROM masto.toots_raw
 WHERE id = ANY(%s) ORDER BY id
"""
_ALL_TOOTS = "masto.toots_raw"
_QUEUED_TOOTS = """
(SELECT toot.* FROM masto.toots_unscored queued JOIN masto.toots_raw toot USING (id))
"""
_PENDING_SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "payload_hash": pa.int64(),
        "created_at": pa.timestamp("us", "UTC"),
        "lang": pa.string(),
        "text": pa.string(),
    }
)

# A post that was edited or deleted since it was read has another payload_hash, or no row.
_MERGE = with_staging(
    """
WITH written AS (
    INSERT INTO masto.toots_sentiment AS t
           (id, created_at, scored_at, prob_pos, label_bin, lang, label_str, reason,
            model_version, text)
    SELECT DISTINCT ON (s.id) s.id, s.created_at, now(), s.prob_pos, s.label_bin, s.lang,
           s.label_str, s.reason, s.model_version, s.text
      FROM {staged_scores} s
      JOIN masto.toots_raw r ON r.id = s.id AND r.payload_hash = s.payload_hash
    ON CONFLICT (id) DO UPDATE SET
           created_at = excluded.created_at, scored_at = excluded.scored_at,
           prob_pos = excluded.prob_pos, label_bin = excluded.label_bin, lang = excluded.lang,
           label_str = excluded.label_str, reason = excluded.reason,
           model_version = excluded.model_version, text = excluded.text
     WHERE (t.created_at, t.prob_pos, t.label_bin, t.lang, t.label_str, t.reason,
            t.model_version, t.text)
           IS DISTINCT FROM
           (excluded.created_at, excluded.prob_pos, excluded.label_bin, excluded.lang,
            excluded.label_str, excluded.reason, excluded.model_version, excluded.text)
    RETURNING coalesce(t.label_str, t.reason) AS outcome
)
SELECT outcome, count(*) FROM written GROUP BY outcome
"""
)


_UNQUEUE_SCORED = with_staging(
    """
DELETE FROM masto.toots_unscored u
 USING {staged_scores} s JOIN masto.toots_raw r ON r.id = s.id AND r.payload_hash = s.payload_hash
 WHERE u.id = s.id
"""
)


@dataclass(frozen=True)
class Pending:
    """Selection of the posts that wait for a score.

    Attributes:
        champion: Version of the model that scores, None if there is none.
        rescore: Whether posts with a score of another model wait too.
        is_queued: Whether all of them are in `toots_unscored`; otherwise all posts are searched.
    """

    champion: str | None
    rescore: bool = False
    is_queued: bool = False


@dataclass(frozen=True)
class ScoringResult:
    """Rows written to `toots_sentiment`: the total, and counts by label or reason.

    `relabelled` are rows that only got another label, after NEUTRAL_LOW or NEUTRAL_HIGH changed.
    """

    scored: int
    by_outcome: dict[str, int] = field(default_factory=dict)
    model_version: str | None = None
    relabelled: int = 0


def score(
    toots: "DataFrame", model: "LoadedModel | None", *, low: float, high: float
) -> "DataFrame":
    """Label texts; a text that cannot be scored gets a reason instead.

    Of a text, the first 10,000 characters are scored; the rest changes nothing.

    Args:
        toots: columns lang, text and any that identify the row, none with a name that the pipeline
            uses.
        model: the model; without one, each text gets the reason no_model.
        low: a two-class model labels a prob_pos up to here negative.
        high: a two-class model labels a prob_pos from here on positive.

    Returns:
        The columns of `toots` and label_bin (smallint, 1 if prob_pos >= .5), prob_pos, label_str
        (positive, neutral, negative), reason (unsupported_language, no_words, no_model) and
        model_version.
    """
    from pyspark.sql import functions as F

    scored = (
        _without_model(toots) if model is None else _with_model(toots, model, low=low, high=high)
    )
    return scored.select(
        *toots.columns,
        (F.col("prob_pos") >= 0.5).cast("smallint").alias("label_bin"),
        "prob_pos",
        "label_str",
        "reason",
        F.lit(model.version if model else None).cast("string").alias("model_version"),
    )


@jvm_end_explained()
def score_pending(
    session: "Callable[[], SparkSession]",
    settings: Settings,
    report: Report,
    *,
    rescore: bool = False,
    rebuild: bool = False,
) -> ScoringResult:
    """Score the posts without a score, with a score of another text, or scored without a model.

    Only posts in the queue `toots_unscored` are searched; all posts if the champion is a new one,
    or with `rebuild`. A post that already has the same score
    is not written. An interrupted run continues where it ended. A post that changes during the run
    is left to the next refresh, which is due because the recorded version was read before the
    posts.

    First it applies a changed NEUTRAL_LOW or NEUTRAL_HIGH to the labels that exist.

    Args:
        session: returns the session that scores; called only if a post waits for a model's score.
        settings: DATABASE_URL, NEUTRAL_LOW, NEUTRAL_HIGH, MODEL_DIR.
        report: gets one line per chunk.
        rescore: also score posts that another model than the champion scored.
        rebuild: search all posts.

    Raises:
        ModelUnreadableError: the champion's folder is missing, incomplete or of another Spark.
        EmbeddingError: the champion needs another embedding.
        SparkEndedError: Spark's JVM ended, for lack of memory for instance.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: the database is not migrated.
    """
    url = settings.postgres_url
    relabelled = relabel(settings, report)
    with transaction(url, snapshot=True) as connection:
        version = toots_version(connection)
        current = champion(connection)
        is_queued = not (rescore or rebuild) and _is_queue_complete(connection, current)
    if current is None:
        report("no sentiment model yet: posts get no label (no_model)")
    model: LoadedModel | None = None
    by_outcome: dict[str, int] = {}
    champion_version = current.version if current else None
    waiting = Pending(champion=champion_version, rescore=rescore, is_queued=is_queued)
    done = 0
    for pending, total in pending_chunks(url, waiting):
        if current is None:
            scored = score_without_model(pending)
        else:
            from mastodon_assets.sentiment.models.store import load_model

            spark = session()
            model = model or load_model(
                spark, for_executors(settings, "the model's path", current.path), settings
            )
            scored = score(
                spark.createDataFrame(pending),
                model,
                low=settings.neutral_low,
                high=settings.neutral_high,
            ).toArrow()
        for outcome, count in write_scores(url, scored, marks_change=rescore).items():
            by_outcome[outcome] = by_outcome.get(outcome, 0) + count
        done += pending.num_rows
        if total > _ROWS_PER_CHUNK:
            report(f"scored {done:,} of {total:,} posts")
    with transaction(url) as connection:
        set_watermark(
            connection,
            "toots_sentiment",
            toots_version=version,
            model_version=champion_version,
            parameters=thresholds(settings),
        )
    result = ScoringResult(sum(by_outcome.values()), by_outcome, champion_version, relabelled)
    report(f"scored {result.scored:,} posts {by_outcome or ''}".rstrip())
    return result


def write_scores(
    postgres_url: SecretStr, scored: pa.Table, *, marks_change: bool = False
) -> dict[str, int]:
    """Write the rows of `score` whose post is still the scored version; return rows by outcome.

    It writes in chunks. With `marks_change`, charts and files are due again if a row was written.
    """
    total: Counter[str] = Counter()
    with transaction(postgres_url) as connection:

        def write(first: int, last: int) -> None:
            outcomes = merge_scores(connection, scored.slice(first, last - first))
            if marks_change and outcomes:
                mark_new_labels(connection)
            total.update(outcomes)

        write_ranges(connection, scored.num_rows, write)
    return dict(total)


def merge_scores(connection: Connection[Any], scored: pa.Table) -> dict[str, int]:
    """Do what `write_scores` does, in the caller's transaction, which holds the write lock."""
    STAGED_SCORES.create(connection)
    copy_arrow(connection, STAGED_SCORES.identifier, scored)
    subtract_staged(connection)
    outcomes = dict(connection.execute(_MERGE).fetchall())
    add_staged(connection)
    connection.execute(_UNQUEUE_SCORED)
    return outcomes


def read_posts(connection: Connection[Any], ids: Sequence[int]) -> pa.Table:
    """Read id, payload_hash, created_at, lang and text of these posts, by rising id."""
    rows = connection.execute(_READ_TOOTS, (list(ids),)).fetchall()
    columns = zip(*rows, strict=True) if rows else ((),) * len(_PENDING_SCHEMA)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, _PENDING_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=_PENDING_SCHEMA)


def score_without_model(posts: pa.Table) -> pa.Table:
    """Return what `score` gives without a model, and without Spark."""
    columns = {
        "label_bin": pa.int16(),
        "prob_pos": pa.float64(),
        "label_str": pa.string(),
        "reason": pa.string(),
        "model_version": pa.string(),
    }
    for name, kind in columns.items():
        value = "no_model" if name == "reason" else None
        posts = posts.append_column(name, pa.array([value] * posts.num_rows, kind))
    return posts


def _is_queue_complete(connection: Connection[Any], current: Model | None) -> bool:
    """Return whether only queued posts wait: the champion has seen all others."""
    watermark = connection.execute(
        "SELECT model_version FROM masto.asset_progress WHERE asset = %s", ("toots_sentiment",)
    ).fetchone()
    return watermark is not None and watermark[0] == (current.version if current else None)


def pending_chunks(postgres_url: SecretStr, waiting: Pending) -> Iterator[tuple[pa.Table, int]]:
    """Yield chunks of posts by rising id, each with the number of all that wait.

    The posts are searched once: PostgreSQL keeps the ids for the life of the connection. A post
    that cannot be written is not read twice.
    """
    toots = _QUEUED_TOOTS if waiting.is_queued else _ALL_TOOTS
    find = sql.SQL(_FIND_PENDING).format(toots=sql.SQL(toots))
    with (
        transaction(postgres_url) as connection,
        connection.cursor("pending", scrollable=True, withhold=True) as found,
    ):
        found.execute(find, asdict(waiting))
        connection.commit()
        total = connection.execute("MOVE FORWARD ALL IN pending").rowcount
        found.scroll(0, mode="absolute")
        while ids := [id_ for (id_,) in found.fetchmany(_ROWS_PER_CHUNK)]:
            posts = read_posts(connection, ids)
            # Scoring takes a while: no transaction is open meanwhile.
            connection.commit()
            yield posts, total


def _without_model(toots: "DataFrame") -> "DataFrame":
    from pyspark.sql import functions as F

    return toots.withColumns(
        {
            "prob_pos": F.lit(None).cast("double"),
            "label_str": F.lit(None).cast("string"),
            "reason": F.lit("no_model"),
        }
    )


def _with_model(
    toots: "DataFrame", model: "LoadedModel", *, low: float, high: float
) -> "DataFrame":
    from pyspark.sql import functions as F

    from mastodon_assets.sentiment.features.languages import checked_language
    from mastodon_assets.sentiment.features.pipeline import label_str, prob_pos

    others = [name for name in toots.columns if name != "text"]
    beginning = F.substring("text", 1, MAX_SCORED)
    checked = toots.withColumn("language", checked_language(beginning, F.col("lang")))
    is_supported = F.coalesce(F.col("language").isin(*model.languages), F.lit(False))
    prepared = checked.select(
        *others,
        F.col("text").alias("whole_text"),
        # An empty text costs the pipeline nothing.
        F.when(is_supported, beginning).otherwise("").alias("text"),
        is_supported.alias("is_supported"),
    )
    reason = F.when(~F.col("is_supported"), "unsupported_language").when(
        F.size("words") == 0, "no_words"
    )
    return model.pipeline.transform(prepared).select(
        *others,
        F.col("whole_text").alias("text"),
        F.when(reason.isNull(), prob_pos()).alias("prob_pos"),
        F.when(reason.isNull(), label_str(low, high)).alias("label_str"),
        reason.alias("reason"),
    )
