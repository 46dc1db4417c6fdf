"""The model in one pass and in plain Python against Spark's stages: the same probabilities."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.ml import PipelineModel
from pyspark.ml.feature import ElementwiseProduct, HashingTF, VectorAssembler
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from mastodon_assets.sentiment.features.languages import letters_of
from mastodon_assets.sentiment.features.ngram_scores import Head, probabilities
from mastodon_assets.sentiment.features.one_pass import OnePassStage, in_one_pass
from mastodon_assets.sentiment.features.pipeline import (
    PipelineParameters,
    cleaning_stages,
    presence_stages,
    term_stages,
)
from mastodon_assets.sentiment.models.store import (
    Description,
    LoadedModel,
    load_model,
    save_model,
)
from mastodon_assets.sentiment.scoring.explain import explain
from mastodon_assets.sentiment.scoring.plain_model import NotPlainError, PlainModel
from mastodon_assets.sentiment.scoring.score import score
from mastodon_assets.sentiment.training.fit import linear_model
from mastodon_assets.spark.session import file_uri
from mastodon_assets_tests.support.golden_models import JUDGED_TEXTS

_BUCKETS, _HEAD_BUCKETS = 997, 512
_TEXTS = (
    *JUDGED_TEXTS,
    "\N{GRINNING FACE}\N{WHITE SMILING FACE} ok \N{PILE OF POO}not\N{FIRE} good",
    "a\u00a0b\u3000c\u2028d\u0085e\tf\x1cg \x00 h",
    "İstanbul ΟΔΥΣΣΕΥΣ straße ﬁne Kelvin\u212a ſſſ",
    "e\u0301te\u0301 nai\u0308ve \ufffd \u200d\u200b zero",
    "see http://one.example/a?b=c\u00a0and https://x\u3000after, some-shop.com. a.b/c",
    "not very ¬good, never but happy; hardly 'ever' cannot: don't ain't nt",
    "10:30:45 :blob: a:b:c :-( :'( =) ^__^ <3 <33 @ @a a@b.c @x@y.z.",
    "#CamelCaseTag #tag_Two_x #ÄÖ #日本語Tag",
    "今日はとても良い天気です。写真を撮りました。",
    "مرحبا بالعالم، هذا يوم جميل جدا",
    "no no no nooooo!!!!! ....... (((( 123456789 ½ ²",
    "word " * 400,
)


def _coefficients(rows: int, columns: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.sin(np.arange(rows * columns) ** 1.5).reshape(rows, columns)
    return found


def _stages(*, has_head: bool, letters: str) -> list[Any]:
    """A pipeline as a training saves it, with coefficients of no meaning."""
    model = linear_model(8 * _coefficients(1, _BUCKETS), np.array([0.3]))
    stages = [
        *cleaning_stages(letters),
        *term_stages(PipelineParameters(letters=letters)),
        *presence_stages(_BUCKETS),
        model.setFeaturesCol("normalized"),
    ]
    if not has_head:
        return stages
    model.setProbabilityCol("polarity").setRawPredictionCol("polarity_raw")
    model.setPredictionCol("polarity_class")
    head = linear_model(8 * _coefficients(3, _HEAD_BUCKETS + 2), np.array([0.1, -0.2, 0.3]))
    inputs = ["class_normalized", "polarity_raw"]
    return [
        *stages,
        *presence_stages(_HEAD_BUCKETS, prefix="class_"),
        VectorAssembler(inputCols=inputs, outputCol="class_features"),
        head.setFeaturesCol("class_features"),
    ]


def _saved(folder: Path, spark: SparkSession, stages: list[Any], letters: str) -> Path:
    parameters = {"character_ngrams": [4, 6], "letters": letters}
    described = Description(
        version="v1",
        spark_version=spark.version,
        trained_at="2026-11-20T10:00:00+00:00",
        corpus="none",
        languages=["en", "ja", "ru"],
        parameters=parameters,
        metrics={},
    )
    held_out = pa.table({"text": ["a"], "target": [1], "prob_pos": [0.5]})
    return Path(str(save_model(folder, PipelineModel(stages), described, held_out, ["a"])))


@pytest.mark.parametrize("has_head", [False, True])
def test_probabilities_and_words_are_those_of_spark(
    spark: SparkSession, tmp_path: Path, has_head: bool
) -> None:
    letters = letters_of(["en", "ru"])
    folder = _saved(tmp_path, spark, _stages(has_head=has_head, letters=letters), letters)
    plain, model = PlainModel(folder), load_model(spark, folder)
    assert isinstance(model.pipeline.stages[-1], OnePassStage)
    saved = replace(model, pipeline=PipelineModel.load(file_uri(folder / "pipeline")))
    rows = [(text, lang) for text in _TEXTS for lang in ("en", "ja-JP", "und", "xx")]
    frame = spark.createDataFrame(
        pa.table(
            {
                "place": range(len(rows)),
                "lang": [lang for _, lang in rows],
                "text": [text for text, _ in rows],
            }
        )
    )
    by_stages, at_once = (
        score(frame, each, low=0.45, high=0.55).toArrow().sort_by("place")
        for each in (saved, model)
    )
    expected = by_stages.column("prob_pos").to_pylist()
    assert at_once.column("prob_pos").to_pylist() == pytest.approx(expected, abs=1e-9)
    assert at_once.drop_columns("prob_pos") == by_stages.drop_columns("prob_pos")
    assert sum(probability is not None for probability in expected) > 40
    assert len(set(expected)) > 15
    for (text, lang), probability in zip(rows, expected, strict=True):
        assert plain.prob_pos(text, lang) == pytest.approx(probability, abs=1e-9), (text, lang)
    for text in (_TEXTS[3], _TEXTS[7], _TEXTS[len(JUDGED_TEXTS)]):
        explained = explain(spark, model, text, "en", low=0.45, high=0.55)
        probability, words = plain.words(text, "en")
        assert probability == pytest.approx(explained.prob_pos, abs=1e-9)
        assert dict(words) == pytest.approx(dict(explained.words), abs=1e-9)
        assert len(words) > 2


def test_a_model_with_other_stages_is_left_to_spark(spark: SparkSession, tmp_path: Path) -> None:
    stages = _stages(has_head=False, letters=r"\p{IsLatin}")
    weights = ElementwiseProduct(
        inputCol="normalized", outputCol="weighted", scalingVec=Vectors.dense([1.0] * _BUCKETS)
    )
    stages[-1:] = [weights, stages[-1].setFeaturesCol("weighted")]
    folder = _saved(tmp_path, spark, stages, r"\p{IsLatin}")
    with pytest.raises(NotPlainError, match="only Spark computes this model"):
        PlainModel(folder)
    loaded = load_model(spark, folder).pipeline.stages
    assert [each.uid for each in loaded] == [each.uid for each in stages]


def test_a_model_whose_terms_are_those_of_other_code_is_scored_by_its_own_stages(
    spark: SparkSession,
) -> None:
    stages = _stages(has_head=False, letters=r"\p{IsLatin}")
    pipeline = PipelineModel(stages)
    known = {"character_ngrams": [4, 6], "letters": r"\p{IsLatin}"}
    assert in_one_pass(spark, pipeline, known) is not pipeline
    for parameters in ({}, {**known, "character_ngrams": [5]}, {**known, "letters": r"\p{L}"}):
        assert in_one_pass(spark, pipeline, parameters) is pipeline
    counted = HashingTF(inputCol="terms", outputCol="presence", numFeatures=_BUCKETS)
    other = PipelineModel([*stages[:5], counted, *stages[6:]])
    assert in_one_pass(spark, other, known) is other


def test_a_plan_has_each_step_once_though_two_python_functions_read_the_text(
    spark: SparkSession,
) -> None:
    """Spark copied the cleaning between the two functions into itself: 700,000 characters."""
    stages = _stages(has_head=False, letters=r"\p{IsLatin}")
    parameters = {"character_ngrams": [4, 6], "letters": r"\p{IsLatin}"}
    pipeline = in_one_pass(spark, PipelineModel(stages), parameters)
    frame = spark.createDataFrame(pa.table({"lang": ["en"], "text": ["a good day"]}))
    scored = score(frame, LoadedModel("v1", ("en",), pipeline), low=0.45, high=0.55)
    assert len(scored._jdf.queryExecution().optimizedPlan().toString()) < 20_000


def test_a_text_has_the_same_probability_in_every_batch() -> None:
    texts = [f" {text.lower()} {number} " for number in range(60) for text in _TEXTS]
    cleaned = pa.array(texts)
    tokens = pa.array([["^", *text.split(), "$"] for text in texts])
    heads = [
        Head(_BUCKETS, _coefficients(1, _BUCKETS), np.array([0.3])),
        Head(_HEAD_BUCKETS, _coefficients(3, _HEAD_BUCKETS + 2), np.array([0.1, -0.2, 0.3])),
    ]
    together = probabilities(cleaned, tokens, (4, 6), heads)
    assert together.shape == (len(texts), 3)
    assert len(texts) > 1024
    for place in (0, 5, 11, 1023, 1024, len(texts) - 1):
        alone = probabilities(cleaned.slice(place, 1), tokens.slice(place, 1), (4, 6), heads)
        assert alone[0] == pytest.approx(together[place], abs=1e-12)
    assert probabilities(cleaned[:0], tokens[:0], (4, 6), heads).shape == (0, 3)
