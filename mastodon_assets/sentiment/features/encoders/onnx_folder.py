"""An encoder in a folder that the user names: a transformer in ONNX, with its tokenizer.

The folder has `tokenizer.json` (Hugging Face's tokenizers) and `model.onnx` or `onnx/model.onnx`, a
transformer. It takes `input_ids`, and `attention_mask` and `token_type_ids` if it has such inputs;
all are int64 of shape (texts, tokens). Its first output is float of shape (texts, tokens, width) or
(texts, width). If it has outputs named `hidden_states…`, these are read instead and concatenated:
inner layers of a transformer carry more sentiment than the last, which is trained on topic.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mastodon_assets.sentiment.features.encoders.interface import EmbeddingError

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


def open_folder(folder: Path, named: Path | str) -> "OnnxFolder":
    """Load the encoder in the folder; `named` is the folder as the setting names it.

    Raises:
        EmbeddingError: the folder or the packages are missing, or the model gives no vector.
    """
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise EmbeddingError(
            f"{_VARIABLE} needs {' and '.join(missing)}; install the extra `embedding`, here and on"
            f" the machines of Spark's executors: pip install {' '.join(missing)}"
        )
    try:
        return OnnxFolder(folder)
    except OSError as error:
        raise EmbeddingError(
            f"{_VARIABLE}={named}: cannot read {error.filename} ({error.strerror}); expected: a"
            f" folder with {_TOKENIZER} and {' or '.join(_MODELS)}"
        ) from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EmbeddingError(
            f"{_VARIABLE}={named}: {_TOKENIZER} and {_model_file(folder).name} give no vector for"
            f" a text ({reason}); expected: a tokenizer of Hugging Face and an ONNX model"
        ) from error


class OnnxFolder:
    """The encoder of a folder, loaded into this process; it computes on one core.

    Raises OSError if a file is missing, and the libraries' own errors if one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.fingerprint = _fingerprint(folder)
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
