"""Small models trained from fixed texts, and the probabilities that they gave when last accepted.

    python -m mastodon_assets_tests.support.golden_models

Trains them and rewrites `sentiment/model_revision.json`. Run it after `MODEL_REVISION` was raised.

What belongs here: the corpora, the models and the texts they judge. What is expected of the result:
`sentiment/test_model_revision.py`.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.evaluation.behavioural_suites import negation_pairs
from mastodon_assets.sentiment.features.embedding import find_embedding
from mastodon_assets.sentiment.features.languages import letters_of
from mastodon_assets.sentiment.features.pipeline import (
    DEMO_PARAMETERS,
    PipelineParameters,
    label_str,
    prob_pos,
)
from mastodon_assets.sentiment.train import code_version
from mastodon_assets.sentiment.training.classes import (
    distinct_labelled,
    languages_of,
    read_calibration,
)
from mastodon_assets.sentiment.training.corpus import (
    distinct_texts,
    find_corpus,
    load_corpus,
    with_templates,
)
from mastodon_assets.sentiment.training.fit import fit_pipeline
from mastodon_assets.sentiment.training.stacked import fit_stacked
from mastodon_assets_tests.support.tiny_embedding import write_embedding

GOLDEN_FILE = Path(__file__).parents[1] / "sentiment" / "model_revision.json"

# One text per step of the pipeline that could change: see the regular expressions in `pipeline`.
JUDGED_TEXTS = (
    "I am happy",
    "I am not happy",
    "What a wonderful morning, thank you all!!!",
    "what a terrible mess... I can't stand it",
    "It isn't bad, but it is not good either",
    "soooo goooood",
    "https://love.example/great www.awful.example :sad_cat: @happy@one.example the bus is late",
    "#HappyMonday everyone :-) <3",
    "\N{LOUDLY CRYING FACE} no more coffee \N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}",
    "Don\N{RIGHT SINGLE QUOTATION MARK}t worry, nothing hurts",
    "12345 times (7 and 8) at 8:30?!",
    "splendiferous, not atrabilious",
    "Привет, сегодня хороший день",
    "the square, the station and the bridge",
    "",
)
# Of all models but the synthetic one. Each fit costs time per bucket.
_BUCKETS = 2**13
_REGENERATED_BY = "python -m mastodon_assets_tests.support.golden_models"
_NEUTRAL = "{} {} {} on {}"
_NEUTRAL_WORDS = (
    ("the bus", "the lecture", "our office", "the library", "a train", "the parcel"),
    ("stops", "opens", "begins", "ends", "arrives", "closes"),
    ("at seven", "at noon", "near the square", "in the hall", "behind the bridge"),
    ("Monday", "Tuesday", "Friday", "the second of May"),
)

Judgement = list[Any]


def golden_models(spark: SparkSession, folder: Path) -> dict[str, list[Judgement]]:
    """Train every model and return by its name [text, prob_pos, label] of `JUDGED_TEXTS`.

    `folder` is empty and is where the corpora are written.
    """
    two = _corpus_file(folder / "corpus.csv")
    three = _calibration_file(folder / "calibration.csv")
    default = _with_head(spark, two, three)
    stacked = _stacked(spark, two, three, folder / "embedding")
    return {
        "synthetic corpus, demo parameters": _judgements(spark, _synthetic(spark)),
        "two classes, default parameters": _judgements(spark, default, "polarity"),
        "three classes, default parameters": _judgements(spark, default),
        "two classes, stacked with an embedding": _judgements(spark, stacked, "stacked"),
        "three classes, stacked with an embedding": _judgements(spark, stacked),
    }


def main() -> None:
    """Write the file."""
    from mastodon_assets.spark.session import build_session

    spark = build_session(load_settings(spark_master="local[2]"))
    with tempfile.TemporaryDirectory() as folder:
        found = golden_models(spark, Path(folder))
    described = {
        "code_version": code_version(spark.version),
        "regenerated_by": _REGENERATED_BY,
        "models": found,
    }
    GOLDEN_FILE.write_text(
        json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"wrote {GOLDEN_FILE}: {described['code_version']}")


def _synthetic(spark: SparkSession) -> PipelineModel:
    texts = distinct_texts(load_corpus(spark, find_corpus(None)))
    return _fit(texts.where("NOT is_held_out"), DEMO_PARAMETERS)


def _with_head(spark: SparkSession, corpus: Path, calibration: Path) -> PipelineModel:
    read = read_calibration(spark, calibration)
    # Fewer buckets and iterations, to save time: all parameters are part of the version anyway.
    parameters = replace(
        PipelineParameters(),
        buckets=_BUCKETS,
        head_buckets=_BUCKETS,
        max_iter=15,
        letters=letters_of(languages_of(read)),
    )
    labelled = distinct_labelled(read, parameters.letters).where("NOT is_held_out")
    return _fit(_with_templates(spark, corpus), parameters, _in_one_order(labelled))


def _stacked(spark: SparkSession, corpus: Path, calibration: Path, folder: Path) -> PipelineModel:
    write_embedding(folder)
    embedding = find_embedding(load_settings(sentiment_embedding_dir=folder))
    assert embedding is not None
    read = read_calibration(spark, calibration)
    parameters = replace(
        DEMO_PARAMETERS,
        buckets=_BUCKETS,
        head_buckets=_BUCKETS,
        max_iter=10,
        letters=letters_of(languages_of(read)),
    )
    texts = distinct_texts(load_corpus(spark, find_corpus(corpus))).where("NOT is_held_out")
    texts = _in_one_order(texts)
    labelled = distinct_labelled(read, parameters.letters).where("NOT is_held_out")
    return fit_stacked(
        texts,
        parameters,
        embedding,
        train_rows=texts.count(),
        report=_ignore,
        labelled=_in_one_order(labelled),
    )


def _with_templates(spark: SparkSession, corpus: Path) -> DataFrame:
    texts = distinct_texts(load_corpus(spark, find_corpus(corpus)))
    return with_templates(spark, texts.where("NOT is_held_out"))


def _fit(
    texts: DataFrame, parameters: PipelineParameters, labelled: DataFrame | None = None
) -> PipelineModel:
    rows = _in_one_order(texts)
    return fit_pipeline(
        rows, parameters, train_rows=rows.count(), report=_ignore, labelled=labelled
    )


def _in_one_order(rows: DataFrame) -> DataFrame:
    """`rows` in one partition, sorted: sums of floats then do not depend on cores and timing."""
    return rows.coalesce(1).sortWithinPartitions("text").localCheckpoint()


def _judgements(
    spark: SparkSession, model: PipelineModel, probability: str = "probability"
) -> list[Judgement]:
    rows = spark.createDataFrame(list(enumerate(JUDGED_TEXTS)), "place int, text string")
    judged = model.transform(rows).withColumn("probability", F.col(probability))
    judged = judged.select(
        "place", "text", prob_pos().alias("prob_pos"), label_str(0.45, 0.55).alias("label")
    )
    return [
        [row["text"], round(row["prob_pos"], 6), row["label"]]
        for row in judged.orderBy("place").collect()
    ]


def _corpus_file(path: Path) -> Path:
    """Sentiment140's format: pairs whose first text is the more positive, in three settings."""
    settings = ("{}", "so &quot;{}&quot; it is &amp; stays", "@ada {} https://one.example/x")
    lines = [
        f'"{target}","1","","","","{setting.format(text)}"\n'
        for better, worse in negation_pairs()
        for setting in settings
        for target, text in ((4, better), (0, worse))
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _calibration_file(path: Path) -> Path:
    rows = [
        (label, text, "en")
        for better, worse in negation_pairs()
        for label, text in (("positive", better), ("negative", worse))
    ]
    rows += [
        ("neutral", _NEUTRAL.format(thing, does, where, when), "en-GB")
        for thing in _NEUTRAL_WORDS[0]
        for does in _NEUTRAL_WORDS[1]
        for where in _NEUTRAL_WORDS[2]
        for when in _NEUTRAL_WORDS[3]
    ]
    rows += [("positive", "Это хороший день", "ru"), ("negative", "Это плохой день", "ru")]
    lines = [f'{label},"{text}",{lang}\n' for label, text, lang in rows]
    path.write_text("".join(["label,text,lang\n", *lines]), encoding="utf-8")
    return path


def _ignore(line: str) -> None:
    pass


if __name__ == "__main__":
    main()
