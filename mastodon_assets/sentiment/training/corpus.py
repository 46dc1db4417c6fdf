"""Training texts: read from a file in Sentiment140's format, deduplicated, split into two parts.

What belongs here: the way from a file, or from the synthetic texts, to rows that train or measure a
model.
"""

import codecs
import gzip
import hashlib
import html
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.features.pipeline import cleaning_stages
from mastodon_assets.sentiment.models.promotion import SYNTHETIC_CORPUS
from mastodon_assets.sentiment.training.synthetic import synthetic_texts
from mastodon_assets.spark.storage import StoragePath

EXPECTED_FORMAT = (
    "expected: Sentiment140's format, six quoted columns without header (target 0, 2 or 4, id,"
    " date, flag, user, text), plain or .gz, UTF-8 or ISO-8859-1"
)
_SCHEMA = (
    "target string, id string, date string, flag string, user string, text string, broken string"
)
_CHUNK_BYTES = 1 << 20
# Exceptions of a missing or damaged file.
_UNREADABLE = (OSError, EOFError, zlib.error)
# One text in five is held out.
_FOLDS = 5


class CorpusUnreadableError(PlatformError):
    """The file that SENTIMENT_CORPUS names is missing, damaged or in another format."""


@dataclass(frozen=True)
class Corpus:
    """A model's training texts; `path` is None for the synthetic corpus.

    `name` is the value of `sentiment_models.corpus`, `fingerprint` a SHA-256 of the content.
    """

    name: str
    fingerprint: str
    path: StoragePath | None

    @property
    def is_synthetic(self) -> bool:
        """Whether it is the built-in corpus, which is for demonstration only."""
        return self.path is None


def find_corpus(path: StoragePath | None) -> Corpus:
    """Return the corpus in the file, or the synthetic one for None.

    Raises:
        CorpusUnreadableError: the file is missing or damaged.
    """
    if path is None:
        return Corpus(SYNTHETIC_CORPUS, _synthetic_fingerprint(), None)
    fingerprint = corpus_fingerprint(path)
    return Corpus(f"{path.name} sha256:{fingerprint[:12]}", fingerprint, path)


def load_corpus(spark: SparkSession, corpus: Corpus) -> DataFrame:
    """Return the rows of `read_corpus`, or those of the synthetic corpus.

    Raises:
        CorpusUnreadableError: the file is missing, damaged or in another format.
    """
    if corpus.path is not None:
        return read_corpus(spark, corpus.path)
    texts, targets = zip(*synthetic_texts(), strict=True)
    rows = pa.table({"target": pa.array(targets, pa.float64()), "text": pa.array(texts)})
    return spark.createDataFrame(rows)


def read_corpus(spark: SparkSession, path: StoragePath) -> DataFrame:
    """Return the columns target (double, 0 negative or 1 positive) and text, without neutral rows.

    HTML entities are resolved; a text may end in a backslash.

    Raises:
        CorpusUnreadableError: the file is missing, damaged or in another format.
    """
    rows = (
        spark.read.schema(_SCHEMA)
        .option("encoding", _encoding(path))
        .option("escape", '"')
        .option("columnNameOfCorruptRecord", "broken")
        # With column pruning the parser loses texts that begin with commas.
        .option("columnPruning", "false")
        .csv(path.absolute().as_uri())
    )
    _check_format(path, rows)
    return rows.where("target <> '2'").select(
        F.when(F.col("target") == "4", 1.0).otherwise(0.0).alias("target"),
        F.udf(html.unescape, "string")("text").alias("text"),
    )


def corpus_fingerprint(
    path: StoragePath, *, setting: str = "SENTIMENT_CORPUS", expected: str = EXPECTED_FORMAT
) -> str:
    """Return a SHA-256 of the uncompressed content: the same for a file and its .gz.

    The order of rows matters. `setting` and `expected` are for the error message: the setting that
    names the file, and its format.

    Raises:
        CorpusUnreadableError: the file is missing or damaged.
    """
    digest = hashlib.sha256()
    try:
        for chunk in _chunks(path):
            digest.update(chunk)
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusUnreadableError(
            f"{setting}={path} cannot be read ({reason}); {expected}"
        ) from error
    return digest.hexdigest()


def distinct_texts(texts: DataFrame) -> DataFrame:
    """Return the columns target, text and is_held_out, one row per cleaned text that has words.

    The target is that of the majority; a text that is positive as often as negative is left out.
    Neither the order of rows nor a repeat changes the side of the split that a text is on.
    """
    # A .gz is read as one partition; cleaning uses all cores.
    texts = texts.repartition("text")
    for stage in cleaning_stages():
        texts = stage.transform(texts)
    return (
        texts.withColumn("cleaned", F.concat_ws(" ", "words"))
        .where("cleaned <> ''")
        .groupBy("cleaned")
        .agg(F.avg("target").alias("share_positive"), F.min("text").alias("text"))
        .where("share_positive <> 0.5")
        .select(
            F.when(F.col("share_positive") > 0.5, 1.0).otherwise(0.0).alias("target"),
            "text",
            (F.pmod(F.xxhash64("cleaned"), F.lit(_FOLDS)) == 0).alias("is_held_out"),
        )
    )


def with_templates(spark: SparkSession, texts: DataFrame) -> DataFrame:
    """Add the synthetic corpus to `texts` (target, text): it teaches what a negation reverses.

    Posts say `not good` often and `not bad` rarely. The templates are split by the same hash as
    every corpus, so none is a text that a corpus holds out.
    """
    templates = distinct_texts(load_corpus(spark, find_corpus(None))).where("NOT is_held_out")
    # One partition: each partition costs a fit one number per bucket.
    return texts.select("target", "text").union(templates.select("target", "text").coalesce(1))


def _check_format(path: StoragePath, rows: DataFrame) -> None:
    is_row = F.col("broken").isNull() & F.col("target").isin("0", "2", "4")
    counts = rows.agg(
        F.count("*").alias("rows"),
        F.count_if(~F.coalesce(is_row, F.lit(False))).alias("broken"),
        F.count_if(is_row & (F.col("target") == "0")).alias("negative"),
        F.count_if(is_row & (F.col("target") == "4")).alias("positive"),
    ).first()
    assert isinstance(counts, Row)
    if counts.broken:
        raise CorpusUnreadableError(
            f"{path}: {counts.broken} of {counts.rows} rows are in another format;"
            f" {EXPECTED_FORMAT}"
        )
    if not counts.negative or not counts.positive:
        raise CorpusUnreadableError(
            f"{path}: needs both negative (0) and positive (4) rows, has {counts.negative} and"
            f" {counts.positive}; {EXPECTED_FORMAT}"
        )


def _encoding(path: StoragePath) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "UTF-8"


def _chunks(path: StoragePath) -> Iterator[bytes]:
    """Yield the uncompressed content. Raises one of `_UNREADABLE`."""
    with path.open("rb") as stored:
        content = gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else stored
        while chunk := content.read(_CHUNK_BYTES):
            yield chunk


def _synthetic_fingerprint() -> str:
    digest = hashlib.sha256()
    for text, target in synthetic_texts():
        digest.update(f"{target:.0f}\t{text}\n".encode())
    return digest.hexdigest()
