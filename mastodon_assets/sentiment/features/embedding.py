"""Text embeddings: the encoder that the settings name, and texts to vectors on the executors.

What belongs here: which encoder, and its stage in a pipeline. The encoders themselves: `encoders`.
What is fitted on the vectors: `stacked`.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
from pyspark.ml import Transformer
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import arrow_udf

from mastodon_assets.config.settings import Settings, is_uri
from mastodon_assets.errors import SettingsError
from mastodon_assets.sentiment.features.encoders.interface import EmbeddingError, Encoder
from mastodon_assets.sentiment.features.encoders.onnx_folder import open_folder
from mastodon_assets.sentiment.features.encoders.packaged import (
    PACKAGES,
    check_package,
    open_package,
)
from mastodon_assets.spark.storage import for_executors

_FOLDER = "SENTIMENT_EMBEDDING_DIR"


@dataclass(frozen=True)
class Embedding:
    """An encoder that every process can load; its vectors have `width` numbers.

    Attributes:
        source: a folder, or the name of a packaged encoder.
        fingerprint: SHA-256 of weights and tokenizer.
        width: length of a vector.
    """

    source: Path | str
    fingerprint: str
    width: int

    def load(self) -> Encoder:
        """Load the encoder into this process, once.

        The files are checked again: on an executor they may be others, or have changed.

        Raises:
            EmbeddingError: files or packages are missing, or are others.
        """
        return _loaded(self.source, self.fingerprint)


def find_embedding(settings: Settings) -> Embedding | None:
    """Check the encoder that the settings name; return None if models have n-grams only.

    Raises:
        EmbeddingError: files or packages are missing, or the model gives no vector.
        SettingsError: the executors cannot open the folder.
    """
    if settings.sentiment_encoder != "ngrams":
        return _packaged(settings.sentiment_encoder)
    named = settings.sentiment_embedding_dir
    if named is None:
        return None
    folder = _mounted(settings, named)
    encoder = open_folder(folder, named)
    return Embedding(folder, encoder.fingerprint, encoder.width)


def require_embedding(settings: Settings, fingerprint: str) -> Embedding:
    """Return the embedding that a model was trained with, found by its fingerprint.

    A packaged encoder is found whatever the settings are: they decide what the next training uses.

    Raises:
        EmbeddingError: the package is missing, or SENTIMENT_EMBEDDING_DIR is empty or has another
            encoder.
        SettingsError: the executors cannot open the folder.
    """
    for name, package in PACKAGES.items():
        if package.fingerprint == fingerprint:
            return _packaged(name)
    found = find_embedding(settings)
    if found is None or found.fingerprint != fingerprint:
        state = f"{found.source} has {found.fingerprint[:12]}" if found else "none is set"
        raise EmbeddingError(
            f"the sentiment model needs the embedding {fingerprint[:12]}, but {state}; set"
            f" {_FOLDER} to the folder that it was trained with, or promote another model"
            " (mastodon-assets model list)"
        )
    return found


def vector_of(text: Column, embedding: Embedding) -> Column:
    """Return the text's vector of length 1; zeros if the text has no token.

    The executors compute it, one Arrow batch at a time. A text's vector does not depend on the
    other texts of its batch.
    """

    def embed(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        encoder = embedding.load()
        for texts in batches:
            vectors = encoder.vectors(texts.to_pylist())
            width = vectors.shape[1]
            ends = np.arange(len(vectors) + 1, dtype=np.int32) * width
            yield pa.ListArray.from_arrays(ends, vectors.ravel())

    vectors = arrow_udf(embed, returnType=T.ArrayType(T.FloatType()))  # type: ignore[call-overload]
    return array_to_vector(vectors(F.coalesce(text, F.lit(""))))


class EmbeddingStage(Transformer):
    """A stage `cleaned` -> `embedding` between Spark's own stages. It is not saved: see `store`."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self._embedding = embedding

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return dataset.withColumn("embedding", vector_of(F.col("cleaned"), self._embedding))


@functools.cache
def _loaded(source: Path | str, fingerprint: str) -> Encoder:
    encoder = open_package(source) if isinstance(source, str) else open_folder(source, source)
    if encoder.fingerprint != fingerprint:
        raise EmbeddingError(
            f"{source} on this machine does not have the embedding {fingerprint[:12]}"
        )
    return encoder


def _packaged(name: str) -> Embedding:
    package = PACKAGES[name]
    check_package(package)
    return Embedding(name, package.fingerprint, package.width)


def _mounted(settings: Settings, named: Path | str) -> Path:
    """Return the folder as a path that is the same here and on the executors."""
    for_executors(settings, _FOLDER, named)
    if not is_uri(named):
        return Path(named).absolute()
    parts = urlsplit(str(named))
    if parts.scheme != "file":
        raise SettingsError(
            f"{_FOLDER}={named}: allowed: a local folder, or file:///… for a folder that all"
            " executors have mounted"
        )
    return Path(unquote(parts.path))
