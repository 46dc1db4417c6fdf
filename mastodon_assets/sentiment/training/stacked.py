"""n-grams and an embedding weighed by one regression: the second backend.

What belongs here: how that is fitted so that neither is believed more than it deserves. The n-grams
alone: `fit`; texts to vectors: `embedding`.
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

from mastodon_assets.sentiment.features.embedding import Embedding, EmbeddingError, EmbeddingStage
from mastodon_assets.sentiment.features.pipeline import PipelineParameters
from mastodon_assets.sentiment.training.fit import fit_head, fit_two_classes

Report = Callable[[str], None]

# The regression on some thousand numbers a text is fitted on so many texts: more gain little, and
# each costs milliseconds.
SAMPLED_TEXTS = 120_000
# So many held-out texts measure: intervals of AUC are then .004 wide.
MEASURED_TEXTS = 50_000
# Of all texts, what a fit of n-grams is without at most, to be judged by it.
_LARGEST_FOLD = 1 / 3
# Against rows counted one each.
_PENALTY = 0.5
_MAX_ITER = 100
# Java keeps an array from half a megabyte on in whole megabytes: one of Spark's default takes two.
_BLOCK_MB = 0.4
_TEXTS_A_PART = 5_000
_PARTITIONS = 8
# Of a partition while the regression is fitted. Few, as each costs a task an iteration; and small,
# as Spark unrolls a partition in memory.
_NUMBERS_A_PARTITION = 4_000_000
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
    """As `fit.fit_pipeline`, by n-grams and `embedding`.

    What n-grams say of a text that they were fitted on is surer than what they say of a new one.
    So each text on which the weight of either side is found is judged by n-grams fitted without it;
    at last they are fitted on all.
    """
    judged = [
        embedded(fold, embedding, report)
        for fold in _judged_by_others(texts, parameters, train_rows=train_rows, report=report)
    ]
    stack = _fit_stack(
        reduce(DataFrame.union, judged),
        embedding.width,
        has_head=labelled is not None,
        report=report,
    )
    report("n-grams of all texts")
    ngrams = fit_two_classes(texts, parameters, train_rows=train_rows, report=report, has_head=True)
    if labelled is None:
        return PipelineModel([*ngrams, EmbeddingStage(embedding), *stack])
    classes = PipelineModel(ngrams).transform(labelled)
    classes = classes.select("class", "cleaned", "grams", "terms", "polarity_raw")
    stacked = PipelineModel(stack).transform(embedded(classes, embedding, report))
    head = fit_head(stacked, parameters, report, beside=("stacked_raw", "direction"))
    return PipelineModel([*ngrams, EmbeddingStage(embedding), *stack, *head])


def _judged_by_others(
    texts: DataFrame, parameters: PipelineParameters, *, train_rows: int, report: Report
) -> Iterator[DataFrame]:
    """target, cleaned, polarity_raw of a sample in folds, each by n-grams fitted without it.

    Few folds, so that these n-grams are nearly as good as those of all texts.
    """
    share = min(1.0, SAMPLED_TEXTS / train_rows)
    folds = math.ceil(share / _LARGEST_FOLD)
    fold = F.pmod(F.xxhash64(F.lit("fold"), "text"), F.lit(folds))
    for number in range(folds):
        report(f"n-grams without the texts that they judge, {number + 1} of {folds}")
        is_left_out = in_share(share) & (fold == number)
        fitted = fit_two_classes(
            texts.where(~is_left_out),
            parameters,
            train_rows=round(train_rows * (1 - share / folds)),
            report=report,
            has_head=True,
        )
        judged = PipelineModel(fitted).transform(texts.where(is_left_out))
        yield judged.select("target", "cleaned", "polarity_raw")


def in_share(share: float) -> Column:
    """Whether a row is in that share of all: by its text, so that it is the same whenever asked."""
    return F.pmod(F.xxhash64(F.lit("stacked"), "text"), F.lit(10_000)) < round(share * 10_000)


def embedded(texts: DataFrame, embedding: Embedding, report: Report) -> DataFrame:
    """`texts` with their vectors from `cleaned`, kept; a line a part tells the time left."""
    # By number: Spark would put so little text into one partition, and so on one core.
    texts = texts.repartition(_PARTITIONS, "cleaned").localCheckpoint()
    rows = texts.count()
    report(f"embedding {rows:,} texts")
    stage, parts, started = EmbeddingStage(embedding), [], time.monotonic()
    count = 1 + rows // _TEXTS_A_PART
    part = F.pmod(F.xxhash64("cleaned"), F.lit(count))
    for number in range(count):
        vectors = stage.transform(texts.where(part == number))
        # Kept on disk: together they may be larger than the driver's memory.
        parts.append(vectors.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY))
        left = (time.monotonic() - started) / (number + 1) * (count - number - 1)
        report(f"embedded {number + 1} of {count} parts, about {left:.0f} s left")
    return reduce(DataFrame.union, parts)


def _fit_stack(
    judged: DataFrame, width: int, *, has_head: bool, report: Report
) -> list[Transformer]:
    """embedding -> direction; that and polarity_raw -> probability, of `judged`'s target.

    With a head the probability is called stacked, its log odds stacked_raw. `direction` is of
    length 1 after all its numbers had the same variance: in an embedding a few are larger than all
    others together.
    """
    rows = judged.count()
    scaler = StandardScaler(inputCol="embedding", outputCol="centred", withMean=True)
    even: list[Transformer] = [
        scaler.fit(judged),
        Normalizer(inputCol="centred", outputCol="direction"),
        # Else the assembler asks for a first row, and so its vector, whenever a plan is made.
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
    report(f"the embedding's weights, at most {_MAX_ITER} iterations")
    features = assembler.transform(PipelineModel(even).transform(judged))
    judge = regression.fit(
        features.select("target", "stacked_features").coalesce(
            _PARTITIONS + rows * width // _NUMBERS_A_PARTITION
        )
    )
    check_descended(judge.summary.objectiveHistory)
    return [*even, assembler, judge]


def check_descended(losses: Sequence[float]) -> None:
    """Raise EmbeddingError where a fit ended about where it began, its weights being worth nothing.

    Spark's line search that finds no way down says so in its log only, and returns.
    """
    if losses[-1] > _LEAST_DESCENT * losses[0]:
        raise EmbeddingError(
            f"Spark found no weights for the embedding (loss {losses[0]:.4f} before,"
            f" {losses[-1]:.4f} after the fit); unset SENTIMENT_EMBEDDING_DIR to train without"
        )
