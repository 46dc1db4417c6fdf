"""Micro-batch scoring with Spark and PostgreSQL, without Kafka."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.micro_batch import MicroBatchScorer, RepeatedScoring
from mastodon_assets.sentiment.scoring.score import score, score_pending
from mastodon_assets.sentiment.train import TrainingResult
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect
from mastodon_assets_tests.support.records import TOPIC, delete, on_partition, staged, upsert

# A version of "1" that lost is not scored, nor is a deleted one, nor what no toot is.
_MESSAGES = (
    upsert("1", content="I am so sad", edited_at="2026-11-20T11:59:30.000Z"),
    upsert("1", content="I am so happy", edited_at="2026-11-20T11:59:40.000Z"),
    upsert("1", content="I am so happy", edited_at="2026-11-20T11:59:40.000Z"),
    upsert("2", content="I am not happy at all, @ada \0 really"),
    upsert("3", content="今日は", language="ja"),
    upsert("4", content="https://one.example/"),
    upsert("5", content="gone"),
    delete("5"),
    b"garbage",
)


class Stream:
    """Handle a batch as the stream does: Spark's part first, then one transaction."""

    def __init__(self, connection: psycopg.Connection[Any], scorer: MicroBatchScorer) -> None:
        self.connection = connection
        self.scorer = scorer
        self.next = 0

    def take(self, *messages: Any) -> None:
        rows = staged(on_partition(messages, first=self.next))
        self.next += len(messages)
        addition = self.scorer(rows)
        with self.connection.transaction():
            write_batch(self.connection, rows, {TOPIC: "topic-id"})
            addition(self.connection)

    def execute(self, statement: str, *values: object) -> None:
        with self.connection.transaction():
            self.connection.execute(statement.encode(), values)

    def scores(self) -> dict[str, tuple[Any, ...]]:
        """By text: label or reason, probability, version of the model."""
        with self.connection.transaction():
            rows = self.connection.execute(
                "SELECT text, coalesce(label_str, reason), prob_pos, model_version"
                "  FROM masto.toots_sentiment"
            ).fetchall()
        return {text: tuple(rest) for text, *rest in rows}


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def stream(
    spark: SparkSession,
    settings: Settings,
    database_url: SecretStr,
    trained: TrainingResult,
    tmp_path: Path,
    lines: list[str],
) -> Iterator[Stream]:
    """The module's database without toots, a stream at its beginning, the champion trained."""
    limited = settings.model_copy(update={"stream_score_max_rows": len(_MESSAGES)})
    with connect(database_url) as connection:
        with connection.transaction():
            connection.execute(
                "TRUNCATE masto.toots_raw, masto.toots_sentiment, masto.toots_unscored,"
                " masto.toot_aliases,"
                " masto.toots_deleted, masto.toots_rejected, masto.toot_metrics_windowed,"
                " masto.user_avg_length_windowed, masto.kafka_offsets CASCADE"
            )
            connection.execute("UPDATE masto.sentiment_models SET status = 'champion'")
        prepare_session(connection)
        connection.commit()
        scorer = MicroBatchScorer(spark, limited, tmp_path, lines.append)
        with connection.transaction():
            scorer.prepare(connection)
        yield Stream(connection, scorer)


def test_a_batch_is_scored_as_the_asset_scores_it(
    spark: SparkSession, settings: Settings, stream: Stream, trained: TrainingResult
) -> None:
    stream.take(*_MESSAGES)
    live = stream.scores()
    assert {text: outcome for text, (outcome, _, _) in live.items()} == {
        "I am so happy": "positive",
        "I am not happy at all, @ada \ufffd really": "negative",
        "今日は": "unsupported_language",
        "https://one.example/": "no_words",
    }
    assert {version for _, _, version in live.values()} == {trained.version}
    assert score_pending(lambda: spark, settings, lambda line: None).scored == 0
    stream.execute("TRUNCATE masto.toots_sentiment")
    score_pending(lambda: spark, settings, lambda line: None, rebuild=True)
    later = stream.scores()
    assert later.keys() == live.keys()
    for text, (outcome, probability, _) in later.items():
        assert outcome == live[text][0]
        assert probability == pytest.approx(live[text][1], abs=1e-9)


def test_an_edit_has_its_score_in_the_transaction_that_stores_it(stream: Stream) -> None:
    stream.take(upsert("1", content="I am so happy"))
    stream.take(upsert("1", content="I am so sad", edited_at="2026-11-20T11:59:30.000Z"))
    stream.take(upsert("1", content="I am so happy", edited_at="2026-11-20T11:59:20.000Z"))
    assert {text: outcome for text, (outcome, _, _) in stream.scores().items()} == {
        "I am so sad": "negative"
    }


def test_a_larger_batch_is_left_to_the_asset(
    spark: SparkSession, settings: Settings, stream: Stream
) -> None:
    stream.take(*_MESSAGES, upsert("6"))
    assert stream.scores() == {}
    assert score_pending(lambda: spark, settings, lambda line: None).scored == 5


def test_a_new_champion_is_taken_up_with_the_batch_after_it_was_seen(
    stream: Stream, trained: TrainingResult, lines: list[str]
) -> None:
    stream.take(upsert("1", content="I am so happy"))
    stream.execute("UPDATE masto.sentiment_models SET status = 'retired'")
    # Scored by who was champion no more: left to the asset.
    stream.take(upsert("2", content="what a good day"))
    stream.take(upsert("3", content="what a bad day"))
    assert {
        text: (outcome, version) for text, (outcome, _, version) in stream.scores().items()
    } == {
        "I am so happy": ("positive", trained.version),
        "what a bad day": ("no_model", None),
    }
    stream.execute("UPDATE masto.sentiment_models SET status = 'champion'")
    stream.take(upsert("4"))
    stream.take(upsert("5", content="what an ugly soup"))
    assert stream.scores()["what an ugly soup"][0] == "negative"
    assert lines == [
        f"scoring by model {trained.version}",
        "no sentiment model yet",
        f"scoring by model {trained.version}",
    ]


def test_a_champion_that_cannot_be_read_is_reported_once_and_stops_no_post(
    stream: Stream, trained: TrainingResult, lines: list[str], tmp_path: Path
) -> None:
    stream.execute("UPDATE masto.sentiment_models SET version = %s", "0" * 16)
    shutil.move(trained.path, tmp_path / "moved")
    try:
        for number in range(3):
            stream.take(upsert(str(number), content="I am so happy"))
    finally:
        shutil.move(tmp_path / "moved", trained.path)
        stream.execute("UPDATE masto.sentiment_models SET version = %s", trained.version)
    assert stream.scores() == {}
    assert len([line for line in lines if "no complete sentiment model" in line]) == 1


def test_one_plan_scores_tables_of_any_size_as_score_does(
    spark: SparkSession, model: LoadedModel, tmp_path: Path
) -> None:
    plan = RepeatedScoring(spark, model, tmp_path, low=0.45, high=0.55)
    for size in (1, 0, 300, 2):
        texts = pa.table(
            {
                "id": pa.array(range(size), pa.int64()),
                "payload_hash": pa.array(range(size), pa.int64()),
                "created_at": pa.array([0] * size, pa.timestamp("us", "UTC")),
                "lang": pa.array(["en", "ja"][number % 2] for number in range(size)),
                "text": pa.array(f"a good day number {number}" for number in range(size)),
            }
        ).cast(
            pa.schema(
                {
                    "id": pa.int64(),
                    "payload_hash": pa.int64(),
                    "created_at": pa.timestamp("us", "UTC"),
                    "lang": pa.string(),
                    "text": pa.string(),
                }
            )
        )
        expected = score(spark.createDataFrame(texts), model, low=0.45, high=0.55).toArrow()
        assert plan.run(texts).sort_by("id") == expected.sort_by("id")
        # No text waits on the disk for the next batch.
        assert list(tmp_path.iterdir()) == []
