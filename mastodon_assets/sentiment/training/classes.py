"""Three classes from a human-labelled file: what is neutral cannot be learned from two.

What belongs here: reading SENTIMENT_CALIBRATION, its split, the head that is fitted on it, and
which languages its figures allow to serve. The pipeline that the head stands on is fitted in `fit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.sentiment.evaluation.evaluate import evaluate_classes
from mastodon_assets.sentiment.features.pipeline import (
    BLOCK_MB,
    CLASSES,
    cleaning_stages,
    label_str,
)
from mastodon_assets.sentiment.training.corpus import CorpusUnreadableError, corpus_fingerprint
from mastodon_assets.spark.storage import StoragePath

EXPECTED_COLUMNS = (
    "expected is a CSV file with the header label,text,lang, where label is negative, neutral or"
    " positive, plain or .gz, UTF-8"
)
# Chance is .333. Below this a language is told, and not served.
SERVED_FROM_MACRO_F1 = 0.5
# Fewer held-out texts than this say nothing about a language.
_FEWEST_TEXTS_A_LANGUAGE = 50
_FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """The file that SENTIMENT_CALIBRATION names; `fingerprint` is a SHA-256 of its content."""

    path: StoragePath
    fingerprint: str


def find_calibration(path: StoragePath | None) -> Calibration | None:
    """Raises: CorpusUnreadableError."""
    if path is None:
        return None
    fingerprint = corpus_fingerprint(
        path, setting="SENTIMENT_CALIBRATION", expected=EXPECTED_COLUMNS
    )
    return Calibration(path, fingerprint)


def read_calibration(spark: SparkSession, path: StoragePath) -> DataFrame:
    """text, lang (first part of the tag, lower case), class (0 negative, 1 neutral, 2 positive).

    Raises: CorpusUnreadableError.
    """
    rows = spark.read.csv(
        path.absolute().as_uri(), header=True, escape='"', multiLine=True, encoding="UTF-8"
    )
    if not {"label", "text", "lang"} <= set(rows.columns):
        raise CorpusUnreadableError(f"SENTIMENT_CALIBRATION={path}: {EXPECTED_COLUMNS}")
    known = rows.select(
        F.coalesce("text", F.lit("")).alias("text"),
        F.lower(F.split("lang", "[-_]")[0]).alias("lang"),
        (F.array_position(F.array(*map(F.lit, CLASSES)), F.lower("label")) - 1).alias("class"),
    )
    counts = known.agg(
        F.count("*").alias("rows"),
        F.count_if(F.coalesce(F.col("class") < 0, F.lit(True)) | F.isnull("lang")).alias("unknown"),
        F.count_distinct("class").alias("classes"),
    ).first()
    assert isinstance(counts, Row)
    if counts.unknown:
        raise CorpusUnreadableError(
            f"SENTIMENT_CALIBRATION={path}: {counts.unknown} of {counts.rows} rows have no such"
            f" label or no language; {EXPECTED_COLUMNS}"
        )
    if counts.classes < len(CLASSES):
        raise CorpusUnreadableError(
            f"SENTIMENT_CALIBRATION={path}: has {counts.classes} of three labels;"
            f" {EXPECTED_COLUMNS}"
        )
    return known.withColumn("class", F.col("class").cast("double"))


def languages_of(labelled: DataFrame) -> list[str]:
    """The languages that `labelled` has texts of."""
    return sorted(row["lang"] for row in labelled.select("lang").distinct().collect())


def distinct_labelled(labelled: DataFrame, letters: str) -> DataFrame:
    """text, lang, class, is_held_out: one row a cleaned text whose labels agree."""
    labelled = labelled.repartition("text")
    for stage in cleaning_stages(letters):
        labelled = stage.transform(labelled)
    return (
        labelled.withColumn("cleaned", F.concat_ws(" ", "words"))
        .where("cleaned <> ''")
        .groupBy("cleaned")
        .agg(
            F.min("text").alias("text"),
            F.min("lang").alias("lang"),
            F.min("class").alias("class"),
            F.max("class").alias("highest"),
        )
        .where("class = highest")
        .select(
            "text",
            "lang",
            "class",
            (F.pmod(F.xxhash64("cleaned"), F.lit(_FOLDS)) == 0).alias("is_held_out"),
        )
    )


def head_regression(
    inverse_regularization: float, *, train_rows: int, max_iter: int
) -> LogisticRegression:
    """class_features -> probability (of three).

    Rows count by `class_weight`, so that a probability is what it would be if the classes were as
    frequent as each other: how many posts are neutral differs from file to file.
    """
    return LogisticRegression(
        featuresCol="class_features",
        labelCol="class",
        weightCol="class_weight",
        family="multinomial",
        regParam=1 / (inverse_regularization * train_rows),
        maxIter=max_iter,
        standardization=False,
        maxBlockSizeInMB=BLOCK_MB,
    )


def with_class_weight(labelled: DataFrame) -> tuple[DataFrame, int]:
    """`labelled` with class_weight, whose mean is 1 and sum the same for each class; its rows."""
    counts = {row["class"]: row["count"] for row in labelled.groupBy("class").count().collect()}
    rows = sum(counts.values())
    weight = F.create_map(
        *(F.lit(v) for key, n in counts.items() for v in (key, rows / (len(counts) * n)))
    )
    return labelled.withColumn("class_weight", weight[F.col("class")]), rows


def measure_classes(
    pipeline: PipelineModel, held_out: DataFrame, *, low: float = 0.5, high: float = 0.5
) -> dict[str, Any]:
    """Figures of `class_figures` on texts (text, lang, class) that trained nothing.

    A pipeline of two classes calls neutral what lies between `low` and `high`.
    """
    predicted = F.array_position(F.array(*map(F.lit, CLASSES)), label_str(low, high)).cast("double")
    return class_figures(
        pipeline.transform(held_out)
        .select("lang", "class", (predicted - 1).alias("predicted"))
        .toArrow()
    )


def class_figures(judged: pa.Table) -> dict[str, Any]:
    """Figures of `judged` (lang, class, predicted), under `languages` those of each language."""
    languages = sorted(set(judged["lang"].to_pylist()))
    return {
        **_figures(judged),
        "languages": {
            language: _figures(judged.filter(pa.compute.equal(judged["lang"], language)))
            for language in languages
        },
    }


def served_languages(figures: dict[str, Any], always: Sequence[str]) -> list[str]:
    """`always`, and each language whose own macro-F1 on enough held-out texts reaches the floor."""
    measured = [
        language
        for language, figure in figures["languages"].items()
        if figure["rows"] >= _FEWEST_TEXTS_A_LANGUAGE
        and (figure["macro_f1"] or 0.0) >= SERVED_FROM_MACRO_F1
    ]
    return sorted({*always, *measured})


def _figures(judged: pa.Table) -> dict[str, Any]:
    return evaluate_classes(judged["class"].to_numpy(), judged["predicted"].to_numpy())
