"""Folders of trained models: written whole or not at all, read only where complete.

What belongs here: `<model_dir>/<version>/` with the saved pipeline, `model.json`,
`held_out.parquet`, the texts that a later candidate is compared on, and `vocabulary.txt`. Of a
model with an embedding, `pipeline` holds two pipelines: what stands before it, and after it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyarrow import parquet
from pyspark.errors import PySparkException
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.features.embedding import (
    Embedding,
    EmbeddingStage,
    require_embedding,
)
from mastodon_assets.spark.storage import StoragePath, file_sizes, remove_tree, rename

_DESCRIPTION = "model.json"
_PIPELINE = "pipeline"
_BEFORE, _AFTER = "pipeline/before", "pipeline/after"
_HELD_OUT = "held_out.parquet"
_VOCABULARY = "vocabulary.txt"
# Enough to tell apart what matters: the interval of a difference in AUC is then .001 wide.
_MAX_HELD_OUT_ROWS = 50_000
_FILES = "files"
_REMEDY = "to train it again, delete the folder and materialize sentiment_pipeline_model"


class ModelUnreadableError(PlatformError):
    """A model's folder is missing, incomplete, or of another Spark."""


@dataclass(frozen=True)
class Description:
    """What `model.json` says: everything that the row in `sentiment_models` needs, and more."""

    version: str
    spark_version: str
    trained_at: str
    corpus: str
    languages: list[str]
    parameters: dict[str, Any]
    metrics: dict[str, Any]
    # Fingerprint of the embedding that the model needs; its weights stay where they are.
    embedding: str | None = None

    @property
    def trained_at_time(self) -> datetime:
        return datetime.fromisoformat(self.trained_at)


@dataclass(frozen=True)
class LoadedModel:
    """A model that can score; `languages` are first parts of tags, lower case."""

    version: str
    languages: tuple[str, ...]
    pipeline: PipelineModel


def save_model(
    model_dir: StoragePath,
    pipeline: PipelineModel,
    description: Description,
    held_out: pa.Table,
    vocabulary: Iterable[str],
) -> StoragePath:
    """Write `<model_dir>/<version>` and return it; it appears under that name when complete.

    `held_out`: text, target (0 or 1) and the model's prob_pos of texts that did not train it, in
    no order that means anything; the first 50,000 are kept. `vocabulary`: words.
    The caller holds the folder's lock: what an earlier process left half written is removed.
    """
    remove_leftovers(model_dir)
    target = model_dir / description.version
    partial = model_dir / f".{description.version}.partial"
    partial.mkdir(parents=True)
    for name, part in _saved_parts(pipeline).items():
        part.save((partial / name).absolute().as_uri())
    kept = held_out.select(["text", "target", "prob_pos"]).slice(0, _MAX_HELD_OUT_ROWS)
    content = pa.BufferOutputStream()
    parquet.write_table(kept, content)
    (partial / _HELD_OUT).write_bytes(content.getvalue().to_pybytes())
    (partial / _VOCABULARY).write_text("\n".join(vocabulary), encoding="utf-8")
    described = {**asdict(description), _FILES: _file_sizes(partial / _PIPELINE)}
    (partial / _DESCRIPTION).write_text(
        json.dumps(described, indent=2, sort_keys=True), encoding="utf-8"
    )
    if target.exists():
        # Not complete, or the caller would have used it.
        remove_tree(target)
    rename(partial, target)
    return target


def remove_leftovers(model_dir: StoragePath) -> None:
    """Remove the folders of trainings that did not end."""
    for partial in model_dir.glob(".*.partial"):
        remove_tree(partial)


def read_description(folder: StoragePath) -> Description:
    """What the folder says about its model. Raises: ModelUnreadableError where it is incomplete."""
    try:
        described = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        files = described.pop(_FILES)
        description = Description(**described)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnreadableError(
            f"no complete sentiment model in {folder} ({type(error).__name__}); {_REMEDY}"
        ) from error
    if description.version != folder.name:
        raise ModelUnreadableError(
            f"{folder} holds the sentiment model {description.version}; {_REMEDY}"
        )
    if files != _file_sizes(folder / _PIPELINE):
        raise ModelUnreadableError(
            f"files of the sentiment model in {folder} are missing or cut short; {_REMEDY}"
        )
    return description


def read_held_out(folder: StoragePath) -> pa.Table:
    """text, target and prob_pos, as `save_model` got them.

    Raises: ModelUnreadableError where they are missing or damaged.
    """
    try:
        return parquet.read_table(pa.BufferReader((folder / _HELD_OUT).read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise ModelUnreadableError(
            f"no held-out texts in {folder} ({type(error).__name__}); {_REMEDY}"
        ) from error


def read_vocabulary(folder: StoragePath) -> frozenset[str]:
    """The words that were seen at least twice in training, lower case.

    Raises: ModelUnreadableError where they are missing.
    """
    try:
        return frozenset((folder / _VOCABULARY).read_text(encoding="utf-8").split("\n"))
    except OSError as error:
        raise ModelUnreadableError(
            f"no vocabulary in {folder} ({type(error).__name__}); {_REMEDY}"
        ) from error


def is_complete(folder: StoragePath) -> bool:
    """Whether all of the folder is there as it was written."""
    try:
        read_description(folder)
    except ModelUnreadableError:
        return False
    return True


def check_usable(folder: StoragePath, spark_version: str) -> Description:
    """What the folder says about its model, which this Spark can load.

    Raises: ModelUnreadableError where it is missing, incomplete or of another Spark.
    """
    description = read_description(folder)
    if spark_minor(description.spark_version) != spark_minor(spark_version):
        raise ModelUnreadableError(
            f"the sentiment model in {folder} was trained with Spark {description.spark_version},"
            f" this is Spark {spark_version}; to train one for it, materialize"
            " sentiment_pipeline_model (or install the Spark of the model)"
        )
    return description


def load_model(
    spark: SparkSession, folder: StoragePath, settings: Settings | None = None
) -> LoadedModel:
    """Load the model in the folder; `settings` name the embedding, which not every model needs.

    Raises: ModelUnreadableError where it is missing, incomplete or of another Spark; EmbeddingError
    where it needs another embedding.
    """
    description = check_usable(folder, spark.version)
    embedding = None
    if description.embedding is not None:
        embedding = require_embedding(settings or load_settings(), description.embedding)
    try:
        pipeline = _load_parts(folder, embedding)
    except (PySparkException, Py4JError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnreadableError(
            f"the sentiment model in {folder} cannot be loaded ({reason}); {_REMEDY}"
        ) from error
    return LoadedModel(description.version, tuple(description.languages), pipeline)


def _saved_parts(pipeline: PipelineModel) -> dict[str, PipelineModel]:
    """What is saved, by its folder: Spark's own stages alone, which plain PySpark loads."""
    places = [n for n, stage in enumerate(pipeline.stages) if isinstance(stage, EmbeddingStage)]
    if not places:
        return {_PIPELINE: pipeline}
    (place,) = places
    return {
        _BEFORE: PipelineModel(pipeline.stages[:place]),
        _AFTER: PipelineModel(pipeline.stages[place + 1 :]),
    }


def _load_parts(folder: StoragePath, embedding: Embedding | None) -> PipelineModel:
    def load(name: str) -> PipelineModel:
        return PipelineModel.load((folder / name).absolute().as_uri())

    if embedding is None:
        return load(_PIPELINE)
    before, after = load(_BEFORE), load(_AFTER)
    return PipelineModel([*before.stages, EmbeddingStage(embedding), *after.stages])


def _file_sizes(folder: StoragePath) -> dict[str, int]:
    """Bytes by relative path; Spark's checksum files apart, which copies may leave out."""
    return {name: size for name, size in file_sizes(folder).items() if not name.endswith(".crc")}


def spark_minor(version: str) -> str:
    """`4.2` of `4.2.0`: saved models are read by the same minor version."""
    return ".".join(version.split(".")[:2])
