"""Three classes from a human-labelled file: two classes do not teach what is neutral.

What belongs here: reading SENTIMENT_CALIBRATION, its split, the three-class head, its metrics, and
the languages that they allow to serve. The fit itself: `fit`.
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
    "expected: a CSV file with the header label,text,lang, where label is negative, neutral or"
    " positive, plain or .gz, UTF-8"
)
# Fewer held-out texts than this say nothing about a language.
_FEWEST_TEXTS_PER_LANGUAGE = 50
_FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """The file that SENTIMENT_CALIBRATION names; `fingerprint` is a SHA-256 of its content."""

    path: StoragePath
    fingerprint: str


def find_calibration(path: StoragePath | None) -> Calibration | None:
    """Return the calibration in the file, None for None.

    Raises:
        CorpusUnreadableError: the file is missing or damaged.
    """
    if path is None:
        return None
    fingerprint = corpus_fingerprint(
        path, setting="SENTIMENT_CALIBRATION", expected=EXPECTED_COLUMNS
    )
    return Calibration(path, fingerprint)


def read_calibration(spark: SparkSession, path: StoragePath) -> DataFrame:
    """Return the columns text, lang and class.

    `lang` is the first part of the tag, lower case; `class` is 0 negative, 1 neutral, 2 positive.

    Raises:
        CorpusUnreadableError: the file is missing, damaged or in another format.
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
            f"SENTIMENT_CALIBRATION={path}: {counts.unknown} of {counts.rows} rows have another"
            f" label or no language; {EXPECTED_COLUMNS}"
        )
    if counts.classes < len(CLASSES):
        raise CorpusUnreadableError(
            f"SENTIMENT_CALIBRATION={path}: has {counts.classes} of the three labels;"
            f" {EXPECTED_COLUMNS}"
        )
    return known.withColumn("class", F.col("class").cast("double"))


def languages_of(labelled: DataFrame) -> list[str]:
    """Return the languages in the column lang, sorted."""
    return sorted(row["lang"] for row in labelled.select("lang").distinct().collect())


def distinct_labelled(labelled: DataFrame, letters: str) -> DataFrame:
    """Return text, lang, class and is_held_out, one row per cleaned text whose labels agree."""
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
    """Build the regression `class_features` -> `probability` of three classes.

    Rows are weighted by `class_weight`, as if all classes were equally frequent: the share of
    neutral posts differs from file to file.
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
    """Add the column class_weight and return the number of rows too.

    The mean of the weights is 1, and their sum is the same for each class.
    """
    counts = {row["class"]: row["count"] for row in labelled.groupBy("class").count().collect()}
    rows = sum(counts.values())
    weight = F.create_map(
        *(F.lit(v) for key, n in counts.items() for v in (key, rows / (len(counts) * n)))
    )
    return labelled.withColumn("class_weight", weight[F.col("class")]), rows


def measure_classes(
    pipeline: PipelineModel, held_out: DataFrame, *, low: float = 0.5, high: float = 0.5
) -> dict[str, Any]:
    """Return `class_figures` of texts (text, lang, class) that did not train the pipeline.

    For a two-class pipeline, neutral is between `low` and `high`.
    """
    predicted = F.array_position(F.array(*map(F.lit, CLASSES)), label_str(low, high)).cast("double")
    return class_figures(
        pipeline.transform(held_out)
        .select("lang", "class", (predicted - 1).alias("predicted"))
        .toArrow()
    )


def class_figures(scored: pa.Table) -> dict[str, Any]:
    """Return the metrics of `evaluate_classes`, and under `languages` those of each language.

    Args:
        scored: columns lang, class and predicted.
    """
    languages = sorted(set(scored["lang"].to_pylist()))
    return {
        **_figures(scored),
        "languages": {
            language: _figures(scored.filter(pa.compute.equal(scored["lang"], language)))
            for language in languages
        },
    }


def served_languages(
    figures: dict[str, Any], always: Sequence[str], *, served_from: float
) -> list[str]:
    """Return `always` and each language that is good enough on enough held-out texts.

    It is good enough if the 95 % interval of its macro-F1 begins at `served_from` or above: a
    language with few texts is not served by luck. Chance is .333.
    """
    measured = [
        language
        for language, figure in figures["languages"].items()
        if figure["rows"] >= _FEWEST_TEXTS_PER_LANGUAGE
        and (figure["intervals"]["macro_f1"] or [0.0])[0] >= served_from
    ]
    return sorted({*always, *measured})


def _figures(scored: pa.Table) -> dict[str, Any]:
    return evaluate_classes(scored["class"].to_numpy(), scored["predicted"].to_numpy())
