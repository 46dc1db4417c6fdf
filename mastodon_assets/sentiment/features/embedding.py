"""Vectors of texts, by an ONNX model in a folder that the user names; nothing is ever fetched.

What belongs here: the folder (SENTIMENT_EMBEDDING_DIR), its fingerprint, and texts to vectors on
the executors. What is fitted on the vectors: `stacked`.

The folder has `tokenizer.json` (of Hugging Face's tokenizers) and `model.onnx` or
`onnx/model.onnx`: a transformer that takes `input_ids`, and `attention_mask` and `token_type_ids`
where it asks for them, all int64 of shape (texts, tokens), and whose first output is float of shape
(texts, tokens, width), or (texts, width). Where it has outputs named `hidden_states…`, these are
read instead, one beside the other: what a text feels like is plainer to a transformer's inner
layers than to the last, which is trained to say what it is about.
"""

import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.ml import Transformer
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from mastodon_assets.config.settings import Settings, is_uri
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.spark.storage import for_executors

_VARIABLE = "SENTIMENT_EMBEDDING_DIR"
_TOKENIZER = "tokenizer.json"
_MODELS = ("model.onnx", "onnx/model.onnx")
_PACKAGES = ("onnxruntime", "tokenizers")
_INNER_LAYERS = "hidden_states"
# A post has at most some 500 characters; what stands behind so many tokens is not read.
_MAX_TOKENS = 128
# What a core's cache holds of a small transformer's inner state; twice as fast as text by text.
_TOKENS_A_BATCH = 768
# A model whose weights are 8-bit integers may scale by the largest number of all that is computed
# together: a text's vector then depends on its neighbours. It shows on these, and such a model is
# asked text by text.
_TRIED = ("a", "a good day", "never again, what a mess!", "so, the train was late once more " * 5)


class EmbeddingError(PlatformError):
    """The embedding's folder or packages are missing, or it is another than the model's."""


@dataclass(frozen=True)
class Embedding:
    """The model in `folder`, whose vectors have `width` numbers.

    `fingerprint` is a SHA-256 of its weights and tokenizer.
    """

    folder: Path
    fingerprint: str
    width: int


def find_embedding(settings: Settings) -> Embedding | None:
    """What SENTIMENT_EMBEDDING_DIR names, looked at; None where it is not set.

    Raises: EmbeddingError; SettingsError where the executors do not see the folder.
    """
    named = settings.sentiment_embedding_dir
    if named is None:
        return None
    folder = _mounted(settings, named)
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise EmbeddingError(
            f"{_VARIABLE} needs {' and '.join(missing)}; install the extra `embedding`, here and"
            " where Spark's executors run"
        )
    try:
        fingerprint = _fingerprint(folder)
    except OSError as error:
        raise EmbeddingError(
            f"{_VARIABLE}={named}: cannot read {error.filename} ({error.strerror}); expected is a"
            f" folder with {_TOKENIZER} and {' or '.join(_MODELS)}"
        ) from error
    try:
        width = Encoder(folder).width
    except Exception as error:  # both libraries raise nothing narrower
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EmbeddingError(
            f"{_VARIABLE}={named}: {_TOKENIZER} and {_model_file(folder).name} give a text no"
            f" vector ({reason}); expected are a tokenizer of Hugging Face and an ONNX model"
        ) from error
    return Embedding(folder, fingerprint, width)


def require_embedding(settings: Settings, fingerprint: str) -> Embedding:
    """The embedding that a model was trained with. Raises: EmbeddingError, SettingsError."""
    found = find_embedding(settings)
    if found is None or found.fingerprint != fingerprint:
        named = f"{found.folder} holds {found.fingerprint[:12]}" if found else "none is named"
        raise EmbeddingError(
            f"the sentiment model needs the embedding {fingerprint[:12]}, and {named}; set"
            f" {_VARIABLE} to the folder that it was trained with, or promote another model"
            " (mastodon-assets model list)"
        )
    return found


def vector_of(text: Column, embedding: Embedding) -> Column:
    """The text's vector, of length 1; zeros where the text has no token.

    Made by the executors, an Arrow batch after the other. A text has the same vector whatever
    stands beside it.
    """
    folder, fingerprint = str(embedding.folder), embedding.fingerprint

    @F.arrow_udf(returnType=T.ArrayType(T.FloatType()))  # type: ignore[call-overload]
    def embed(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        encoder = _encoder(folder, fingerprint)
        for texts in batches:
            vectors = encoder.vectors(texts.to_pylist())
            width = vectors.shape[1]
            ends = np.arange(len(vectors) + 1, dtype=np.int32) * width
            yield pa.ListArray.from_arrays(ends, vectors.ravel())

    return array_to_vector(embed(F.coalesce(text, F.lit(""))))


class EmbeddingStage(Transformer):
    """cleaned -> embedding, between stages of Spark's own. It is not saved: see `store`."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self._embedding = embedding

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return dataset.withColumn("embedding", vector_of(F.col("cleaned"), self._embedding))


class Encoder:
    """Texts to vectors in this process, on one core."""

    def __init__(self, folder: Path) -> None:
        # Since 1.29 its builds tell their maker of each model that is loaded, unless told not to
        # before they are imported.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        # Spark gives each core a task of its own.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(_model_file(folder)), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {given.name for given in self._session.get_inputs()}
        outputs = [output.name for output in self._session.get_outputs()]
        inner = [name for name in outputs if name.startswith(_INNER_LAYERS)]
        self._outputs = inner or outputs[:1]
        self._tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        tried = [self._tokenizer.encode(text).ids for text in _TRIED]
        alone = np.vstack([self._computed([tokens]) for tokens in tried])
        self.width = alone.shape[1]
        self._can_batch = np.array_equal(alone, self._computed(tried))

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """(texts, width): of each output the mean of the tokens' vectors, of like lengths.

        Of length 1 together; zeros without a token.
        """
        found = np.zeros((len(texts), self.width), np.float32)
        tokens = [self._tokenizer.encode(text).ids if text.strip() else [] for text in texts]
        for rows in self._batches(tokens):
            found[rows] = self._computed([tokens[row] for row in rows])
        return found

    def _batches(self, tokens: list[list[int]]) -> Iterator[list[int]]:
        """Rows to compute together: of like length, so that little is computed for nothing."""
        batch: list[int] = []
        for row in sorted(range(len(tokens)), key=lambda row: len(tokens[row])):
            if not tokens[row]:
                continue
            is_full = (len(batch) + 1) * len(tokens[row]) > _TOKENS_A_BATCH
            if batch and (is_full or not self._can_batch):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _computed(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        longest = max(map(len, tokens))
        ids = np.zeros((len(tokens), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(tokens):
            ids[row, : len(each)], mask[row, : len(each)] = each, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        outputs = self._session.run(
            self._outputs, {name: value for name, value in given.items() if name in self._inputs}
        )
        means = [_of_length_1(_mean_of_tokens(output, tokens)) for output in outputs]
        return np.hstack(means) / np.float32(np.sqrt(len(means)))


def _mean_of_tokens(output: NDArray[np.float32], tokens: list[list[int]]) -> NDArray[np.float32]:
    if output.ndim == 2:
        return output
    # Row by row: a sum over a longer array is rounded otherwise.
    return np.stack(
        [vectors[: len(each)].mean(axis=0) for vectors, each in zip(output, tokens, strict=True)]
    )


def _of_length_1(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


@functools.cache
def _encoder(folder: str, fingerprint: str) -> Encoder:
    """Once a process. Looked at again: an executor's folder may be another, or have changed."""
    if _fingerprint(Path(folder)) != fingerprint:
        raise EmbeddingError(f"{folder} does not hold the embedding {fingerprint[:12]} here")
    return Encoder(Path(folder))


def _model_file(folder: Path) -> Path:
    """Where the folder has its weights, or should have them."""
    found = [folder / name for name in _MODELS if (folder / name).exists()]
    return found[0] if found else folder / _MODELS[0]


def _fingerprint(folder: Path) -> str:
    """Raises: OSError."""
    model = _model_file(folder)
    # Large models keep their weights in a second file, `model.onnx_data`.
    weights = sorted(model.parent.glob(f"{model.name}?*"))
    digest = hashlib.sha256()
    for path in (model, *weights, folder / _TOKENIZER):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _mounted(settings: Settings, named: Path | str) -> Path:
    """The folder as a path, which is the same here and on the executors."""
    for_executors(settings, _VARIABLE, named)
    if not is_uri(named):
        return Path(named).absolute()
    parts = urlsplit(str(named))
    if parts.scheme != "file":
        raise SettingsError(
            f"{_VARIABLE}={named}: allowed: a local folder, or file:///… for one that all executors"
            " have mounted"
        )
    return Path(unquote(parts.path))
