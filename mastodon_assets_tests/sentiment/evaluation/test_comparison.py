from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.evaluation.comparison import compare, paired_differences
from mastodon_assets.sentiment.models.registry import Model, champion
from mastodon_assets.sentiment.models.store import LoadedModel, read_held_out
from mastodon_assets.sentiment.train import TrainingResult
from mastodon_assets.warehouse.database import transaction


def _champion(settings: Settings) -> Model:
    with transaction(settings.postgres_url) as connection:
        current = champion(connection)
    assert current is not None
    return current


def _texts(spark: SparkSession, *texts: str) -> DataFrame:
    return spark.createDataFrame([(text,) for text in texts], "text string")


def test_a_model_is_not_worse_than_itself(
    spark: SparkSession, settings: Settings, trained: TrainingResult, model: LoadedModel
) -> None:
    current = _champion(settings)
    comparison = compare(spark, settings, current, model.pipeline, _texts(spark))
    same = {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert comparison == {
        "champion": current.version,
        "rows": trained.metrics["rows"],
        "differences": {"auc": same, "accuracy": same},
    }


def test_texts_that_trained_the_candidate_do_not_count(
    spark: SparkSession, settings: Settings, trained: TrainingResult, model: LoadedModel
) -> None:
    seen = read_held_out(Path(trained.path))["text"].to_pylist()[:10]
    comparison = compare(
        spark, settings, _champion(settings), model.pipeline, _texts(spark, *seen, "other")
    )
    assert comparison["rows"] == trained.metrics["rows"] - 10


def test_a_champion_without_its_held_out_texts_is_reported(
    spark: SparkSession,
    settings: Settings,
    trained: TrainingResult,
    model: LoadedModel,
    tmp_path: Path,
) -> None:
    held_out = Path(trained.path) / "held_out.parquet"
    content = held_out.read_bytes()
    try:
        for damage in (held_out.unlink, lambda: held_out.write_bytes(content[:100])):
            damage()
            comparison = compare(
                spark, settings, _champion(settings), model.pipeline, _texts(spark)
            )
            assert comparison["unreadable"].startswith(f"no held-out texts in {trained.path} (")
    finally:
        held_out.write_bytes(content)


def test_what_is_hard_for_both_models_does_not_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 2, 2_000).astype(np.float64)
    scores = np.clip(targets * 0.2 + generator.normal(0.4, 0.3, 2_000), 0.0, 1.0)
    slightly_worse = np.where(generator.uniform(size=2_000) < 0.02, 1 - scores, scores)
    measured = paired_differences(targets, slightly_worse, scores)["accuracy"]
    low, middle, high = (float(measured[name] or 0) for name in ("low", "difference", "high"))
    assert low < middle < high
    # The accuracy's own interval is four points wide.
    assert high - low < 0.02


def test_one_class_alone_has_no_auc() -> None:
    measured = paired_differences(np.ones(50), np.ones(50), np.ones(50))
    assert measured["auc"] == {"difference": None, "low": None, "high": None}
