"""The model in plain Python against Spark: the same probabilities and words."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.ml import PipelineModel
from pyspark.ml.feature import ElementwiseProduct, VectorAssembler
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from mastodon_assets.sentiment.features.languages import letters_of
from mastodon_assets.sentiment.features.pipeline import (
    PipelineParameters,
    cleaning_stages,
    presence_stages,
    term_stages,
)
from mastodon_assets.sentiment.models.store import Description, load_model, save_model
from mastodon_assets.sentiment.scoring.explain import explain
from mastodon_assets.sentiment.scoring.plain_model import NotPlainError, PlainModel
from mastodon_assets.sentiment.scoring.score import score
from mastodon_assets.sentiment.training.fit import linear_model
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
    scored = score(frame, model, low=0.45, high=0.55).toArrow().sort_by("place")
    expected = scored.column("prob_pos").to_pylist()
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
