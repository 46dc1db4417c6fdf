"""The n-gram model in plain Python: probabilities of a saved model without Spark.

What belongs here: the stages of `pipeline` once more, for a few texts at a time, where no JVM is at
hand. A test compares every step with Spark. Models with an embedding are not computed here.
"""

import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.features import languages, pipeline
from mastodon_assets.sentiment.models.store import read_description
from mastodon_assets.sentiment.scoring.explain import effects, without_each_word

_MASK = 0xFFFFFFFF
# Of Spark's functions `hash` and `HashingTF`.
_SEED = 42
# Java without (?U): what is a space or a part of a word in ASCII. Its \b knows all letters.
_ASCII = ((r"[\w-]", "[A-Za-z0-9_-]"), (r"\w", "[A-Za-z0-9_]"), (r"\S", r"[^ \t\n\x0b\f\r]"))


class NotPlainError(PlatformError):
    """The model has stages that only Spark computes."""


class PlainModel:
    """A saved n-gram model, two-class or with a three-class head.

    It holds one number per bucket and class: 29 MB with the parameters of a large corpus.
    """

    def __init__(self, folder: Path) -> None:
        """Load the model in a folder of `store`.

        Raises:
            ModelUnreadableError: The folder is missing or incomplete.
            NotPlainError: The model has stages that only Spark computes.
        """
        description = read_description(folder)
        self.version = description.version
        self._languages = frozenset(description.languages)
        parameters = description.parameters
        try:
            self._lengths = [int(length) for length in parameters["character_ngrams"]]
            self._token = _compiled(pipeline.token_pattern(parameters["letters"]))
            self._heads = _read_heads(folder / "pipeline" / "stages")
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise NotPlainError(f"{folder}: only Spark computes this model") from error

    def words(self, text: str, lang: str) -> tuple[float | None, tuple[tuple[str, float], ...]]:
        """Return `prob_pos` and the `words` of `explain`."""
        words, variants = without_each_word(text)
        hashes: dict[str, int] = {}
        whole, *without = (self.prob_pos(variant, lang, hashes) for variant in variants)
        return whole, effects(words, whole, without)

    def prob_pos(self, text: str, lang: str, hashes: dict[str, int] | None = None) -> float | None:
        """Return what `score` gives as `prob_pos`, None if it gives a reason.

        Args:
            text: The text, at most `MAX_SCORED` characters.
            lang: Its declared language.
            hashes: Hashes of n-grams that several texts share; it grows.
        """
        if _language(text, lang) not in self._languages:
            return None
        cleaned = cleaned_text(text)
        tokens = self._tokens(cleaned)
        if not any(_found(r"\p{L}", token) for token in tokens):
            return None
        hashes = {} if hashes is None else hashes
        terms = {*_word_ngrams(tokens), *_character_ngrams(cleaned, self._lengths, hashes)}
        raw: NDArray[np.float64] = np.empty(0)
        for head in self._heads:
            raw = head.raw(terms, raw)
        probabilities = 1 / (1 + np.exp(-raw)) if len(raw) == 2 else np.exp(raw - raw.max())
        return float(probabilities[-1] / (probabilities[-1] + probabilities[0]))

    def _tokens(self, cleaned: str) -> list[str]:
        found = self._token.findall(_negated(cleaned))
        return [pipeline.BEGIN, *found, pipeline.END]


@dataclass(frozen=True)
class _Head:
    """A logistic regression over the buckets, and over the raw prediction of the one before."""

    buckets: int
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    def raw(self, terms: Iterable[int], before: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one number per class."""
        # HashingTF hashes each term, a number, once more.
        places = np.unique(np.fromiter(map(_hash_int, terms), np.int64) % self.buckets)
        margins = self.coefficients[:, places].sum(axis=1) / math.sqrt(len(places))
        margins = margins + self.coefficients[:, self.buckets :] @ before + self.intercepts
        return np.array([-margins[0], margins[0]]) if len(margins) == 1 else margins


def _read_heads(stages: Path) -> list[_Head]:
    """Read the stages behind the terms: hashing, scaling to length 1, regression, once or twice."""
    folders = sorted(stages.iterdir(), key=lambda each: int(each.name.partition("_")[0]))
    heads: list[_Head] = []
    buckets, names = 0, ""
    for folder in folders:
        (file,) = (folder / "metadata").glob("part-*")
        saved = json.loads(file.read_text(encoding="utf-8"))
        name, parameters = saved["class"].rpartition(".")[2], saved["paramMap"]
        names += f"{name} "
        if name == "HashingTF":
            buckets = int(parameters["numFeatures"])
        if name == "LogisticRegressionModel":
            heads.append(_read_head(folder / "data", buckets, len(heads)))
    ngrams, head = "SQLTransformer " * 5, "HashingTF Normalizer {}LogisticRegressionModel "
    two_classes = ngrams + head.format("")
    if names not in (two_classes, two_classes + head.format("VectorAssembler ")):
        raise ValueError(names)
    return heads


def _read_head(folder: Path, buckets: int, number: int) -> _Head:
    from pyarrow import parquet

    (file,) = folder.glob("*.parquet")
    (row,) = parquet.read_table(file, columns=["interceptVector"]).to_pylist()
    matrix = parquet.read_table(file, columns=["coefficientMatrix"]).column(0).combine_chunks()
    (is_dense, rows, columns, is_transposed) = (
        matrix.field(name)[0].as_py() for name in ("type", "numRows", "numCols", "isTransposed")
    )
    # The head has the raw prediction of two classes behind its buckets.
    if not is_dense or not is_transposed or columns != buckets + 2 * number:
        raise ValueError(folder)
    coefficients = matrix.field("values").flatten().to_numpy().reshape(rows, columns)
    return _Head(buckets, coefficients, np.array(row["interceptVector"]["values"]))


def cleaned_text(text: str) -> str:
    """Return the column `cleaned` of `pipeline.cleaning_stages`."""
    for guard, pattern in _CLEANING:
        if guard in text:
            text = _compiled(pattern).sub(" ", text)
    if all(_found(each, text) for each in (pipeline.EMOTICON_CHARACTER, pipeline.WHOLE_EMOTICON)):
        for pattern, word in pipeline.EMOTICONS:
            text = _compiled(pattern).sub(f" . {word} . ", text)
    text = text.translate(_TRANSLATED).lower()
    text = _compiled(pipeline.ELONGATION).sub(r"\1\1", text)
    return f" {_compiled(pipeline.SPACES).sub(' ', text).strip(' ')} "


# Which texts have a match; Spark's guards are for its speed.
_CLEANING = (
    ("", pipeline.LINK),
    ("@", pipeline.HANDLE),
    (":", pipeline.CUSTOM_EMOJI),
    ("#", pipeline.HASHTAG_HUMP),
)
_TRANSLATED = str.maketrans("’‘ʼ＇#¬", "''''  ")


def _negated(cleaned: str) -> str:
    if not _found(pipeline.MAY_NEGATE, cleaned):
        return cleaned
    marked = rf"\1\2\3{pipeline.NEGATION_SUFFIX}\4"
    return str(_compiled(pipeline.NEGATED).sub(marked, cleaned))


def _language(text: str, declared: str) -> str | None:
    """Return what `languages.checked_language` gives."""
    for pattern in pipeline.NO_LANGUAGE:
        text = _compiled(pattern).sub(" ", text)
    tag = re.split("[-_]", declared)[0].lower()
    known = None if tag in languages.UNDETERMINED else tag
    return languages.detect(text, is_declared=known is not None) or known


@functools.cache
def _compiled(pattern: str) -> Any:
    """Compile a Java regex of `pipeline`."""
    is_unicode, pattern = pattern.startswith("(?U)"), pattern.removeprefix("(?U)")
    for java, python in () if is_unicode else _ASCII:
        pattern = pattern.replace(java, python)
    pattern = pattern.replace(r"[\s&&[^ ]]", r"[^\S ]")
    pattern = re.sub(r"\\x\{([0-9A-F]+)\}", lambda found: chr(int(found[1], 16)), pattern)
    return regex.compile(pattern)


def _found(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


def _word_ngrams(tokens: Sequence[str]) -> Iterator[int]:
    """Yield the hashes of tokens, of pairs, and of pairs with one token between them."""
    following = [*tokens[1:], None], [*tokens[2:], None, None]
    for token, second, third in zip(tokens, *following, strict=False):
        alone = _hash_text(token)
        yield alone
        # A hash ignores null.
        yield alone if second is None else _hash_text(second, alone)
        apart = _hash_int(1, alone)
        yield apart if third is None else _hash_text(third, apart)


def _character_ngrams(
    cleaned: str, lengths: Sequence[int], hashes: dict[str, int]
) -> Iterator[int]:
    for length in lengths:
        for ngram in _windows(cleaned, length):
            found = hashes.get(ngram)
            if found is None:
                found = hashes[ngram] = _hash_int(2, _hash_text(ngram))
            yield found


def _windows(text: str, length: int) -> Iterator[str]:
    for place in range(len(text) - length + 1):
        window = text[place : place + length]
        yield window
        # Java also begins in the middle of a pair of surrogates, and writes the rest of it as `?`.
        if window[0] > "\uffff":
            yield f"?{window[1:]}"


def _hash_text(text: str, seed: int = _SEED) -> int:
    """Return Spark's Murmur3 of a text: each byte of its tail is mixed like a whole word."""
    data = text.encode("utf-8", "replace")
    whole = len(data) - len(data) % 4
    mixed = seed & _MASK
    for place in range(0, whole, 4):
        mixed = _mixed(mixed, int.from_bytes(data[place : place + 4], "little"))
    for byte in data[whole:]:
        mixed = _mixed(mixed, byte - 256 if byte > 127 else byte)
    return _finished(mixed, len(data))


def _hash_int(number: int, seed: int = _SEED) -> int:
    return _finished(_mixed(seed & _MASK, number), 4)


def _mixed(state: int, word: int) -> int:
    word = (word & _MASK) * 0xCC9E2D51 & _MASK
    word = (word << 15 | word >> 17) * 0x1B873593 & _MASK
    state ^= word
    state = (state << 13 | state >> 19) & _MASK
    return state * 5 + 0xE6546B64 & _MASK


def _finished(state: int, length: int) -> int:
    """Return the hash as a signed number."""
    state ^= length
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ state >> shift) * factor & _MASK
    state ^= state >> 16
    return state - 2**32 if state >= 2**31 else state
