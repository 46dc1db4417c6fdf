"""Micro-batch scoring: scores of the stream's batches, written in the transaction of their rows.

What belongs here: when a micro-batch is scored, which model does it, how that is fast. The score
itself comes from `score`, so stream and asset give a text the same probability.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import compute, ipc
from pyspark.sql import SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.features.encoders.interface import EmbeddingError
from mastodon_assets.sentiment.models.registry import Model, champion
from mastodon_assets.sentiment.models.store import LoadedModel, ModelUnreadableError, load_model
from mastodon_assets.sentiment.scoring.score import merge_scores, score, score_without_model
from mastodon_assets.spark.session import shares_our_disk
from mastodon_assets.spark.storage import for_executors

if TYPE_CHECKING:
    from psycopg import Connection

Report = Callable[[str], None]

_TEXTS = "id long, payload_hash long, created_at timestamp, lang string, text string"


class MicroBatchScorer:
    """A scorer of batches of at most STREAM_SCORE_MAX_ROWS rows, by the champion.

    The asset `toots_sentiment` scores a larger batch, and a batch whose champion cannot be used or
    is replaced meanwhile. No other process may use `folder`.
    """

    def __init__(
        self, spark: SparkSession, settings: Settings, folder: Path, report: Report
    ) -> None:
        self._spark = spark
        self._settings = settings
        self._folder = folder
        self._report = report
        self._champion: Model | None = None
        self._score: Callable[[pa.Table], pa.Table] | None = None
        self._model_version: str | None = None
        self._is_prepared = False

    def prepare(self, connection: "Connection[Any]") -> None:
        """Load the champion before the first batch needs it."""
        self._champion = champion(connection)
        self._use_champion()

    def __call__(self, rows: pa.Table) -> Callable[["Connection[Any]"], None]:
        """Score the rows of `parse.parse_records` and return a function that writes the scores.

        Call that function in the transaction that stored the rows.
        """
        self._use_champion()
        version, scored = self._model_version, None
        if self._score and rows.num_rows <= self._settings.stream_score_max_rows:
            scored = self._score(_texts_to_score(rows))

        def write(connection: "Connection[Any]") -> None:
            self._look_for_another_champion(connection, version)
            is_champions = version == (self._champion.version if self._champion else None)
            if scored is not None and is_champions:
                merge_scores(connection, scored)

        return write

    def _look_for_another_champion(
        self, connection: "Connection[Any]", version: str | None
    ) -> None:
        row = connection.execute(
            "SELECT version FROM masto.sentiment_models WHERE status = 'champion'"
        ).fetchone()
        if (row[0] if row else None) != version:
            self._champion = champion(connection)

    def _use_champion(self) -> None:
        """Plan scoring by the champion that was seen last, unless that is the present plan."""
        current = self._champion
        version = current.version if current else None
        if self._is_prepared and version == self._model_version:
            return
        self._is_prepared, self._model_version, self._score = True, version, None
        if current is None:
            self._score = score_without_model
            self._report("no sentiment model yet")
            return
        try:
            model = load_model(
                self._spark,
                for_executors(self._settings, "the model's path", current.path),
                self._settings,
            )
        except (ModelUnreadableError, EmbeddingError) as error:
            self._report(f"posts are not scored: {error}")
            return
        self._score = self._scoring_by(model)
        self._report(f"scoring by model {version}")

    def _scoring_by(self, model: LoadedModel) -> Callable[[pa.Table], pa.Table]:
        spark, folder = self._spark, self._folder
        low, high = self._settings.neutral_low, self._settings.neutral_high
        if shares_our_disk(self._settings):
            return RepeatedScoring(spark, model, folder, low=low, high=high).run
        return lambda texts: score(
            spark.createDataFrame(texts), model, low=low, high=high
        ).toArrow()


class RepeatedScoring:
    """A run of `score` that is planned once and repeated for many small tables of texts.

    Planning the pipeline takes Spark several times as long as scoring a batch. So the plan reads
    one file in `folder`, which exists during a run only. Executors must share this process's disk.
    """

    def __init__(
        self,
        spark: SparkSession,
        model: LoadedModel,
        folder: Path,
        *,
        low: float,
        high: float,
    ) -> None:
        self._file = folder / "texts.arrow"
        texts = spark.range(0, 1, 1, 1).mapInArrow(_reader_of(str(self._file)), _TEXTS)
        self._scored = score(texts, model, low=low, high=high)
        # The first run compiles code, and the first posts should not wait for that.
        self.run(_SAMPLE)

    def run(self, texts: pa.Table) -> pa.Table:
        """Score `texts` (id, payload_hash, created_at, lang, text) as `score` does."""
        try:
            with ipc.new_file(self._file, texts.schema) as writer:
                writer.write_table(texts)
            return self._scored.toArrow()
        finally:
            # The next batch may be long in coming, and a deleted post's text must not wait for it.
            self._file.unlink(missing_ok=True)


_SAMPLE = pa.table(
    {
        "id": pa.array([1], pa.int64()),
        "payload_hash": pa.array([1], pa.int64()),
        "created_at": pa.array([0], pa.timestamp("us", "UTC")),
        "lang": ["en"],
        "text": ["a good day, not a bad one"],
    }
)


def _texts_to_score(rows: pa.Table) -> pa.Table:
    """Return the post versions of a batch; the merge decides which of them are stored."""
    is_text = compute.and_(
        compute.equal(rows["op"], "upsert"), compute.is_null(rows["reject_reason"])
    )
    texts = rows.filter(is_text)
    return (
        texts.select(["id", "payload_hash", "created_at", "lang", "content_txt"])
        .rename_columns(_SAMPLE.column_names)
        .cast(_SAMPLE.schema)
    )


def _reader_of(
    path: str,
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def read(placeholder: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in placeholder:
            pass
        with Path(path).open("rb") as file:
            yield from ipc.open_file(file).read_all().to_batches()

    return read
