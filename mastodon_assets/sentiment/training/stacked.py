"""The stacked model: n-grams and an embedding, weighted by one regression.

What belongs here: a fit that overrates neither of the two. The n-grams alone: `fit`; texts to
vectors: `embedding`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

from pyspark import StorageLevel
from pyspark.ml import PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import Normalizer, StandardScaler, VectorAssembler, VectorSizeHint
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mastodon_assets.sentiment.features.embedding import Embedding, EmbeddingStage
from mastodon_assets.sentiment.features.encoders.interface import EmbeddingError
from mastodon_assets.sentiment.features.pipeline import PipelineParameters
from mastodon_assets.sentiment.training.fit import fit_head, fit_two_classes

Report = Callable[[str], None]

# Texts of the regression on the embedding, which has some thousand numbers per text. Each costs
# milliseconds, and 120,000 gave the same figures (macro-F1 of eight languages .610 and .607).
SAMPLED_TEXTS = 40_000
# Held-out texts that measure: the interval of AUC is then .004 wide.
MEASURED_TEXTS = 50_000
# Upper bound of the share of all texts that a fold leaves out.
_LARGEST_FOLD = 1 / 3
# Relative to a sum over rows, not their mean.
_PENALTY = 0.5
_MAX_ITER = 100
# From half a megabyte on, Java stores an array in whole megabytes: a block of Spark's default size
# takes two.
_BLOCK_MB = 0.4
_TEXTS_PER_PART = 5_000
_PARTITIONS = 8
# Size of a partition while the regression is fitted. Large, because each costs one task per
# iteration; but bounded, because Spark unrolls a partition in memory.
_NUMBERS_PER_PARTITION = 4_000_000
_LEAST_DESCENT = 0.99


def fit_stacked(
    texts: DataFrame,
    parameters: PipelineParameters,
    embedding: Embedding,
    *,
    train_rows: int,
    report: Report,
    labelled: DataFrame | None = None,
) -> PipelineModel:
    """Fit as `fit.fit_pipeline` does, on n-grams and `embedding`.

    N-grams are more certain about a text that they were fitted on than about a new one. So each
    text that trains the weights of the two is scored by n-grams fitted without it (cross-fitting).
    At the end the n-grams are fitted on all texts.
    """
    scored = [
        embedded(fold, embedding, report)
        for fold in _cross_fitted(texts, parameters, train_rows=train_rows, report=report)
    ]
    stack = _fit_stack(
        reduce(DataFrame.union, scored),
        embedding.width,
        has_head=labelled is not None,
        report=report,
    )
    report("n-grams of all texts")
    ngrams = fit_two_classes(texts, parameters, train_rows=train_rows, report=report, has_head=True)
    if labelled is None:
        return PipelineModel([*ngrams, EmbeddingStage(embedding), *stack])
    classes = PipelineModel(ngrams).transform(labelled)
    classes = classes.select("class", "cleaned", "word_ngrams", "terms", "polarity_raw")
    stacked = PipelineModel(stack).transform(embedded(classes, embedding, report))
    head = fit_head(stacked, parameters, report, extra_vectors=("stacked_raw", "direction"))
    return PipelineModel([*ngrams, EmbeddingStage(embedding), *stack, *head])


def _cross_fitted(
    texts: DataFrame, parameters: PipelineParameters, *, train_rows: int, report: Report
) -> Iterator[DataFrame]:
    """Yield the folds of a sample, each scored by n-grams that were fitted without it.

    Columns: target, cleaned, polarity_raw.
    Each fold is small, so that these n-grams are nearly as good as those of all texts.
    """
    share = min(1.0, SAMPLED_TEXTS / train_rows)
    folds = math.ceil(share / _LARGEST_FOLD)
    fold = F.pmod(F.xxhash64(F.lit("fold"), "text"), F.lit(folds))
    for number in range(folds):
        report(f"n-grams without the texts that they score, {number + 1} of {folds}")
        is_left_out = in_share(share) & (fold == number)
        fitted = fit_two_classes(
            texts.where(~is_left_out),
            parameters,
            train_rows=round(train_rows * (1 - share / folds)),
            report=report,
            has_head=True,
        )
        scored = PipelineModel(fitted).transform(texts.where(is_left_out))
        yield scored.select("target", "cleaned", "polarity_raw")


def in_share(share: float) -> Column:
    """Return whether a row belongs to a sample of that share, by a hash of its text."""
    return F.pmod(F.xxhash64(F.lit("stacked"), "text"), F.lit(10_000)) < round(share * 10_000)


def embedded(texts: DataFrame, embedding: Embedding, report: Report) -> DataFrame:
    """Add the vectors of `cleaned` to `texts` and store them; report the time left per part."""
    # An explicit number: Spark would put this little text into one partition, on one core.
    texts = texts.repartition(_PARTITIONS, "cleaned").localCheckpoint()
    rows = texts.count()
    report(f"embedding {rows:,} texts")
    stage, parts, started = EmbeddingStage(embedding), [], time.monotonic()
    count = 1 + rows // _TEXTS_PER_PART
    part = F.pmod(F.xxhash64("cleaned"), F.lit(count))
    for number in range(count):
        vectors = stage.transform(texts.where(part == number))
        # On disk: together they may be larger than the driver's memory.
        parts.append(vectors.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY))
        left = (time.monotonic() - started) / (number + 1) * (count - number - 1)
        report(f"embedded {number + 1} of {count} parts, about {left:.0f} s left")
    return reduce(DataFrame.union, parts)


def _fit_stack(
    scored: DataFrame, width: int, *, has_head: bool, report: Report
) -> list[Transformer]:
    """Fit the stages `embedding` -> `direction`, then with `polarity_raw` -> `probability`.

    If a head follows, the probability's column is `stacked`, that of its log odds `stacked_raw`.
    `direction` is the embedding with all its numbers at the same variance, then scaled to length 1:
    a few numbers of an embedding are larger than all others together.
    """
    rows = scored.count()
    scaler = StandardScaler(inputCol="embedding", outputCol="centred", withMean=True)
    scaled: list[Transformer] = [
        scaler.fit(scored),
        Normalizer(inputCol="centred", outputCol="direction"),
        # Otherwise the assembler reads a first row, and so computes a vector, for each plan.
        VectorSizeHint(inputCol="direction", size=width, handleInvalid="optimistic"),
    ]
    assembler = VectorAssembler(
        inputCols=["polarity_raw", "direction"], outputCol="stacked_features"
    )
    regression = LogisticRegression(
        featuresCol="stacked_features",
        labelCol="target",
        regParam=_PENALTY / rows,
        maxIter=_MAX_ITER,
        standardization=False,
        maxBlockSizeInMB=_BLOCK_MB,
    )
    if has_head:
        regression.setProbabilityCol("stacked").setRawPredictionCol("stacked_raw")
        regression.setPredictionCol("stacked_class")
    report(f"weights of the embedding, at most {_MAX_ITER} iterations")
    features = assembler.transform(PipelineModel(scaled).transform(scored))
    fitted = regression.fit(
        features.select("target", "stacked_features").coalesce(
            _PARTITIONS + rows * width // _NUMBERS_PER_PARTITION
        )
    )
    check_descended(fitted.summary.objectiveHistory)
    return [*scaled, assembler, fitted]


def check_descended(losses: Sequence[float]) -> None:
    """Check that a fit lowered its loss.

    If Spark's line search fails, it only writes a log line and returns useless weights.

    Raises:
        EmbeddingError: the last loss is about the first.
    """
    if losses[-1] > _LEAST_DESCENT * losses[0]:
        raise EmbeddingError(
            f"Spark found no weights for the embedding (loss {losses[0]:.4f} before,"
            f" {losses[-1]:.4f} after the fit); unset SENTIMENT_ENCODER and"
            " SENTIMENT_EMBEDDING_DIR to train without"
        )
