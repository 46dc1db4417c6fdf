"""Text embeddings from an ONNX model in a folder that the user names; nothing is downloaded.

What belongs here: the folder (SENTIMENT_EMBEDDING_DIR), its fingerprint, and texts to vectors on
the executors. What is fitted on the vectors: `stacked`.

The folder has `tokenizer.json` (Hugging Face's tokenizers) and `model.onnx` or `onnx/model.onnx`, a
transformer. It takes `input_ids`, and `attention_mask` and `token_type_ids` if it has such inputs;
all are int64 of shape (texts, tokens). Its first output is float of shape (texts, tokens, width) or
(texts, width). If it has outputs named `hidden_states…`, these are read instead and concatenated:
inner layers of a transformer carry more sentiment than the last, which is trained on topic.
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
from pyspark.sql.pandas.functions import arrow_udf

from mastodon_assets.config.settings import Settings, is_uri
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.spark.storage import for_executors

_VARIABLE = "SENTIMENT_EMBEDDING_DIR"
_TOKENIZER = "tokenizer.json"
_MODELS = ("model.onnx", "onnx/model.onnx")
_PACKAGES = ("onnxruntime", "tokenizers")
_INNER_LAYERS = "hidden_states"
# A post has about 500 characters at most; later tokens are not read.
_MAX_TOKENS = 128
# A core's cache holds the inner state of a small transformer for this many tokens. Twice as fast as
# one text at a time.
_TOKENS_PER_BATCH = 768
# A model whose weights are 8-bit integers may scale by the largest number in a batch. A text's
# vector then depends on the other texts. These texts show it, and such a model gets one text at a
# time.
_PROBE_TEXTS = (
    "a",
    "a good day",
    "never again, what a mess!",
    "so, the train was late once more " * 5,
)


class EmbeddingError(PlatformError):
    """The embedding's folder or packages are missing, or the model needs another embedding."""


@dataclass(frozen=True)
class Embedding:
    """An ONNX model in `folder`; its vectors have `width` numbers.

    `fingerprint` is a SHA-256 of its weights and tokenizer.
    """

    folder: Path
    fingerprint: str
    width: int


def find_embedding(settings: Settings) -> Embedding | None:
    """Check the folder that SENTIMENT_EMBEDDING_DIR names; return None if the setting is empty.

    Raises:
        EmbeddingError: the folder or the packages are missing, or the model gives no vector.
        SettingsError: the executors cannot open the folder.
    """
    named = settings.sentiment_embedding_dir
    if named is None:
        return None
    folder = _mounted(settings, named)
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise EmbeddingError(
            f"{_VARIABLE} needs {' and '.join(missing)}; install the extra `embedding`, here and"
            " on the machines of Spark's executors"
        )
    try:
        fingerprint = _fingerprint(folder)
    except OSError as error:
        raise EmbeddingError(
            f"{_VARIABLE}={named}: cannot read {error.filename} ({error.strerror}); expected: a"
            f" folder with {_TOKENIZER} and {' or '.join(_MODELS)}"
        ) from error
    try:
        width = Encoder(folder).width
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EmbeddingError(
            f"{_VARIABLE}={named}: {_TOKENIZER} and {_model_file(folder).name} give no vector for"
            f" a text ({reason}); expected: a tokenizer of Hugging Face and an ONNX model"
        ) from error
    return Embedding(folder, fingerprint, width)


def require_embedding(settings: Settings, fingerprint: str) -> Embedding:
    """Return the embedding that a model was trained with, found by its fingerprint.

    Raises:
        EmbeddingError: SENTIMENT_EMBEDDING_DIR is empty or names another embedding.
        SettingsError: the executors cannot open the folder.
    """
    found = find_embedding(settings)
    if found is None or found.fingerprint != fingerprint:
        state = f"{found.folder} has {found.fingerprint[:12]}" if found else "none is set"
        raise EmbeddingError(
            f"the sentiment model needs the embedding {fingerprint[:12]}, but {state}; set"
            f" {_VARIABLE} to the folder that it was trained with, or promote another model"
            " (mastodon-assets model list)"
        )
    return found


def vector_of(text: Column, embedding: Embedding) -> Column:
    """Return the text's vector of length 1; zeros if the text has no token.

    The executors compute it, one Arrow batch at a time. A text's vector does not depend on the
    other texts of its batch.
    """
    folder, fingerprint = str(embedding.folder), embedding.fingerprint

    def embed(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        encoder = _encoder(folder, fingerprint)
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


class Encoder:
    """An encoder of texts in this process, on one core."""

    def __init__(self, folder: Path) -> None:
        # Since 1.29 its builds report each loaded model to their maker, unless this is set before
        # the import.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        # Spark gives each core a task of its own.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(_model_file(folder)), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {one.name for one in self._session.get_inputs()}
        outputs = [output.name for output in self._session.get_outputs()]
        inner = [name for name in outputs if name.startswith(_INNER_LAYERS)]
        self._outputs = inner or outputs[:1]
        self._tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        probes = [self._tokenizer.encode(text).ids for text in _PROBE_TEXTS]
        single = np.vstack([self._computed([tokens]) for tokens in probes])
        self.width = single.shape[1]
        self._can_batch = np.array_equal(single, self._computed(probes))

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """Return one vector of length 1 per text, zeros without a token; shape (texts, width).

        A vector concatenates the outputs that are read. Each part is the mean over the tokens,
        scaled so that all parts have the same length.
        """
        found = np.zeros((len(texts), self.width), np.float32)
        tokens = [self._tokenizer.encode(text).ids if text.strip() else [] for text in texts]
        for rows in self._batches(tokens):
            found[rows] = self._computed([tokens[row] for row in rows])
        return found

    def _batches(self, tokens: list[list[int]]) -> Iterator[list[int]]:
        """Group rows of similar length, so that little is computed for padding."""
        batch: list[int] = []
        for row in sorted(range(len(tokens)), key=lambda row: len(tokens[row])):
            if not tokens[row]:
                continue
            is_full = (len(batch) + 1) * len(tokens[row]) > _TOKENS_PER_BATCH
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
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        outputs = self._session.run(
            self._outputs, {name: value for name, value in inputs.items() if name in self._inputs}
        )
        means = [_of_length_1(_mean_of_tokens(output, tokens)) for output in outputs]
        return np.hstack(means) / np.float32(np.sqrt(len(means)))


def _mean_of_tokens(output: NDArray[np.float32], tokens: list[list[int]]) -> NDArray[np.float32]:
    if output.ndim == 2:
        return output
    # Row by row: a sum over a longer array is rounded differently.
    return np.stack(
        [vectors[: len(each)].mean(axis=0) for vectors, each in zip(output, tokens, strict=True)]
    )


def _of_length_1(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(
        vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0
    )
    return scaled


@functools.cache
def _encoder(folder: str, fingerprint: str) -> Encoder:
    """Load the encoder once per process.

    Checks the folder again: on an executor it may be another one, or it may have changed.
    """
    if _fingerprint(Path(folder)) != fingerprint:
        raise EmbeddingError(
            f"{folder} on this machine does not have the embedding {fingerprint[:12]}"
        )
    return Encoder(Path(folder))


def _model_file(folder: Path) -> Path:
    """Return the file of the weights, or where it should be."""
    found = [folder / name for name in _MODELS if (folder / name).exists()]
    return found[0] if found else folder / _MODELS[0]


def _fingerprint(folder: Path) -> str:
    """Hash weights and tokenizer. Raises OSError."""
    model = _model_file(folder)
    # Large models keep their weights in a second file, `model.onnx_data`.
    weights = sorted(model.parent.glob(f"{model.name}?*"))
    digest = hashlib.sha256()
    for path in (model, *weights, folder / _TOKENIZER):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _mounted(settings: Settings, named: Path | str) -> Path:
    """Return the folder as a path that is the same here and on the executors."""
    for_executors(settings, _VARIABLE, named)
    if not is_uri(named):
        return Path(named).absolute()
    parts = urlsplit(str(named))
    if parts.scheme != "file":
        raise SettingsError(
            f"{_VARIABLE}={named}: allowed: a local folder, or file:///… for a folder that all"
            " executors have mounted"
        )
    return Path(unquote(parts.path))
