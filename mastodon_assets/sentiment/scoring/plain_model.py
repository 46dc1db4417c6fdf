"""The n-gram model in plain Python: probabilities of a saved model without Spark.

What belongs here: the stages of `pipeline` once more, for a few texts at a time, where no JVM is at
hand. A test compares every step with Spark. Models with an embedding are not computed here.
"""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import regex

from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.features import languages, pipeline
from mastodon_assets.sentiment.features.ngram_scores import Head, probabilities
from mastodon_assets.sentiment.models.store import read_description
from mastodon_assets.sentiment.scoring.explain import effects, without_each_word

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
        whole, *without = self._probabilities(variants, lang)
        return whole, effects(words, whole, without)

    def prob_pos(self, text: str, lang: str) -> float | None:
        """Return what `score` gives as `prob_pos`, None if it gives a reason.

        Args:
            text: The text, at most `MAX_SCORED` characters.
            lang: Its declared language.
        """
        (found,) = self._probabilities([text], lang)
        return found

    def _probabilities(self, texts: Sequence[str], lang: str) -> list[float | None]:
        """Return `prob_pos` of each text."""
        cleaned = [cleaned_text(text) for text in texts]
        tokens = [self._tokens(text) for text in cleaned]
        columns = pa.array(cleaned, pa.string()), pa.array(tokens, pa.list_(pa.string()))
        found = probabilities(*columns, self._lengths, self._heads)
        prob_pos = found[:, -1] / (found[:, -1] + found[:, 0])
        return [
            float(probability) if self._is_scored(text, lang, of_text) else None
            for text, of_text, probability in zip(texts, tokens, prob_pos, strict=True)
        ]

    def _is_scored(self, text: str, lang: str, tokens: Sequence[str]) -> bool:
        has_words = any(_found(r"\p{L}", token) for token in tokens)
        return has_words and _language(text, lang) in self._languages

    def _tokens(self, cleaned: str) -> list[str]:
        found = self._token.findall(_negated(cleaned))
        return [pipeline.BEGIN, *found, pipeline.END]


def _read_heads(stages: Path) -> list[Head]:
    """Read the stages behind the terms: hashing, scaling to length 1, regression, once or twice."""
    folders = sorted(stages.iterdir(), key=lambda each: int(each.name.partition("_")[0]))
    heads: list[Head] = []
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


def _read_head(folder: Path, buckets: int, number: int) -> Head:
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
    return Head(buckets, coefficients, np.array(row["interceptVector"]["values"]))


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
