"""The model store: folders of trained models, written atomically and read only if complete.

What belongs here: `<model_dir>/<version>/`, with the saved pipeline, `model.json`, `card.md`,
`vocabulary.txt` and `held_out.parquet`, the texts that a later candidate is compared on. If a model
has an embedding, `pipeline` has two pipelines: the stages before it, and those after it. Importing
it loads no `pyspark.ml`: a refresh in which no post waits reads the vocabulary alone.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyarrow import parquet
from pyspark.errors import PySparkException

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.models.card import model_card
from mastodon_assets.spark.storage import StoragePath, file_sizes, remove_tree, rename

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import SparkSession

    from mastodon_assets.sentiment.features.embedding import Embedding

_DESCRIPTION = "model.json"
_PIPELINE = "pipeline"
_BEFORE, _AFTER = "pipeline/before", "pipeline/after"
_HELD_OUT = "held_out.parquet"
_VOCABULARY = "vocabulary.txt"
_CARD = "card.md"
# The interval of a difference in AUC is then .001 wide, which is narrow enough.
_MAX_HELD_OUT_ROWS = 50_000
_FILES = "files"
_REMEDY = "delete the folder and materialize sentiment_pipeline_model to train the model again"


class ModelUnreadableError(PlatformError):
    """A model's folder is missing, incomplete, or of another version of Spark."""


@dataclass(frozen=True)
class Description:
    """The content of `model.json`: all that the row in `sentiment_models` needs, and more."""

    version: str
    spark_version: str
    trained_at: str
    corpus: str
    languages: list[str]
    parameters: dict[str, Any]
    metrics: dict[str, Any]
    # Fingerprint of the embedding that the model needs; the weights are not copied.
    embedding: str | None = None

    @property
    def trained_at_time(self) -> datetime:
        """The time of the training, with its time zone."""
        return datetime.fromisoformat(self.trained_at)


@dataclass(frozen=True)
class LoadedModel:
    """A model that can score; `languages` are first parts of language tags, lower case."""

    version: str
    languages: tuple[str, ...]
    pipeline: "PipelineModel"


def save_model(
    model_dir: StoragePath,
    pipeline: "PipelineModel",
    description: Description,
    held_out: pa.Table,
    vocabulary: Iterable[str],
) -> StoragePath:
    """Write `<model_dir>/<version>` and return it; it gets that name when it is complete.

    The caller holds the training lock, so half-written folders of earlier processes are removed.

    Args:
        model_dir: folder of all models.
        pipeline: the fitted pipeline.
        description: the content of `model.json`.
        held_out: columns text, target (0 or 1) and the model's prob_pos of texts that did not train
            it, in random order; the first 50,000 are kept.
        vocabulary: words.
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
    write_card(partial, description.version, description.corpus, description.metrics)
    described = {**asdict(description), _FILES: _file_sizes(partial / _PIPELINE)}
    (partial / _DESCRIPTION).write_text(
        json.dumps(described, indent=2, sort_keys=True), encoding="utf-8"
    )
    if target.exists():
        # It is incomplete, or the caller would have used it.
        remove_tree(target)
    rename(partial, target)
    return target


def write_card(folder: StoragePath, version: str, corpus: str, metrics: Mapping[str, Any]) -> None:
    """Write `card.md` into a model's folder; nothing else of a complete folder ever changes.

    Raises:
        OSError: it cannot be written.
    """
    (folder / _CARD).write_text(model_card(version, corpus, metrics), encoding="utf-8")


def remove_leftovers(model_dir: StoragePath) -> None:
    """Remove the folders of trainings that were interrupted."""
    for partial in model_dir.glob(".*.partial"):
        remove_tree(partial)


def read_description(folder: StoragePath) -> Description:
    """Read `model.json` and check that the folder is complete.

    Raises:
        ModelUnreadableError: it is not.
    """
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
            f"{folder} has the sentiment model {description.version}; {_REMEDY}"
        )
    if files != _file_sizes(folder / _PIPELINE):
        raise ModelUnreadableError(
            f"files of the sentiment model in {folder} are missing or truncated; {_REMEDY}"
        )
    return description


def read_held_out(folder: StoragePath) -> pa.Table:
    """Read the columns text, target and prob_pos, as `save_model` got them.

    Raises:
        ModelUnreadableError: they are missing or damaged.
    """
    try:
        return parquet.read_table(pa.BufferReader((folder / _HELD_OUT).read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise ModelUnreadableError(
            f"no held-out texts in {folder} ({type(error).__name__}); {_REMEDY}"
        ) from error


def read_vocabulary(folder: StoragePath) -> frozenset[str]:
    """Read the words that were seen at least twice in training, lower case.

    Raises:
        ModelUnreadableError: they are missing.
    """
    try:
        return frozenset((folder / _VOCABULARY).read_text(encoding="utf-8").split("\n"))
    except OSError as error:
        raise ModelUnreadableError(
            f"no vocabulary in {folder} ({type(error).__name__}); {_REMEDY}"
        ) from error


def is_complete(folder: StoragePath) -> bool:
    """Return whether the folder has everything that was written."""
    try:
        read_description(folder)
    except ModelUnreadableError:
        return False
    return True


def check_usable(folder: StoragePath, spark_version: str) -> Description:
    """Read `model.json` and check that this Spark can load the model.

    Raises:
        ModelUnreadableError: the folder is missing, incomplete or of another Spark.
    """
    description = read_description(folder)
    if spark_minor(description.spark_version) != spark_minor(spark_version):
        raise ModelUnreadableError(
            f"the sentiment model in {folder} was trained with Spark {description.spark_version},"
            f" this is Spark {spark_version}; materialize sentiment_pipeline_model to train one for"
            " it, or install the model's version of Spark"
        )
    return description


def load_model(
    spark: "SparkSession", folder: StoragePath, settings: Settings | None = None
) -> LoadedModel:
    """Load the model in the folder; `settings` name the embedding, if the model needs one.

    A model of n-grams alone scores in one pass, which gives the probabilities of its saved stages.

    Raises:
        ModelUnreadableError: the folder is missing, incomplete or of another Spark.
        EmbeddingError: the model needs another embedding.
    """
    from mastodon_assets.sentiment.features.one_pass import in_one_pass

    description = check_usable(folder, spark.version)
    embedding = None
    if description.embedding is not None:
        from mastodon_assets.sentiment.features.embedding import require_embedding

        embedding = require_embedding(settings or load_settings(), description.embedding)
    try:
        pipeline = _load_parts(folder, embedding)
        pipeline = in_one_pass(spark, pipeline, description.parameters)
    except (PySparkException, Py4JError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnreadableError(
            f"the sentiment model in {folder} cannot be loaded ({reason}); {_REMEDY}"
        ) from error
    return LoadedModel(description.version, tuple(description.languages), pipeline)


def _saved_parts(pipeline: "PipelineModel") -> "dict[str, PipelineModel]":
    """Return by folder the pipelines to save: only Spark's own stages, which PySpark can load."""
    from pyspark.ml import PipelineModel

    from mastodon_assets.sentiment.features.embedding import EmbeddingStage

    places = [n for n, stage in enumerate(pipeline.stages) if isinstance(stage, EmbeddingStage)]
    if not places:
        return {_PIPELINE: pipeline}
    (place,) = places
    return {
        _BEFORE: PipelineModel(pipeline.stages[:place]),
        _AFTER: PipelineModel(pipeline.stages[place + 1 :]),
    }


def _load_parts(folder: StoragePath, embedding: "Embedding | None") -> "PipelineModel":
    from pyspark.ml import PipelineModel

    from mastodon_assets.sentiment.features.embedding import EmbeddingStage

    def load(name: str) -> PipelineModel:
        return PipelineModel.load((folder / name).absolute().as_uri())

    if embedding is None:
        return load(_PIPELINE)
    before, after = load(_BEFORE), load(_AFTER)
    return PipelineModel([*before.stages, EmbeddingStage(embedding), *after.stages])


def _file_sizes(folder: StoragePath) -> dict[str, int]:
    """Return bytes by relative path, without Spark's checksum files, which a copy may lack."""
    return {name: size for name, size in file_sizes(folder).items() if not name.endswith(".crc")}


def spark_minor(version: str) -> str:
    """Return `4.2` for `4.2.0`: a saved model is read by the same minor version."""
    return ".".join(version.split(".")[:2])
