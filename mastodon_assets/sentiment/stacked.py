"""n-grams and an embedding weighed by one regression: the second backend.

What belongs here: how that is fitted so that neither is believed more than it deserves. The n-grams
alone: `fit`; texts to vectors: `embedding`.
"""

import time
from collections.abc import Callable, Sequence
from functools import reduce

from pyspark.ml import PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import VectorAssembler, VectorSizeHint
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mastodon_assets.sentiment.embedding import Embedding, EmbeddingError, EmbeddingStage
from mastodon_assets.sentiment.fit import alone, fit_head, fit_two_classes
from mastodon_assets.sentiment.pipeline import PipelineParameters

Report = Callable[[str], None]

# The regression on some 400 numbers a text is fitted on so many texts: more gain little, and each
# costs milliseconds.
SAMPLED_TEXTS = 60_000
# So many held-out texts measure: intervals of AUC are then .004 wide.
MEASURED_TEXTS = 50_000
LARGEST_SHARE = 1 / 3
# Against rows counted one each. More, and a corpus of a thousand texts does not hear the embedding.
_PENALTY = 10.0
_MAX_ITER = 100
_TEXTS_A_PART = 5_000
_PARTITIONS = 8
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
    So they are fitted twice: without a sample, on which the weight of each side is found, and then
    on all texts.
    """
    share = min(LARGEST_SHARE, SAMPLED_TEXTS / train_rows)
    is_sampled = in_share(share)
    sample = texts.where(is_sampled)
    report("n-grams without the texts on which they are weighed against the embedding")
    tried = fit_two_classes(
        texts.where(~is_sampled),
        parameters,
        train_rows=round(train_rows * (1 - share)),
        report=report,
        has_head=True,
    )
    judged = PipelineModel(tried).transform(sample).select("target", "cleaned", "polarity_raw")
    stack = _fit_stack(
        embedded(judged, embedding, report),
        embedding.width,
        has_head=labelled is not None,
        report=report,
    )
    report("n-grams of all texts")
    ngrams = fit_two_classes(texts, parameters, train_rows=train_rows, report=report, has_head=True)
    if labelled is None:
        return PipelineModel([*ngrams, EmbeddingStage(embedding), *stack])
    judged = PipelineModel(ngrams).transform(labelled)
    judged = judged.select("class", "cleaned", "grams", "terms", "polarity_raw")
    stacked = PipelineModel(stack).transform(embedded(judged, embedding, report))
    report(f"three classes, at most {parameters.max_iter} iterations")
    head = fit_head(stacked, parameters, report, beside=("stacked_raw", "embedding"))
    return PipelineModel([*ngrams, EmbeddingStage(embedding), *stack, *head])


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
        parts.append(stage.transform(texts.where(part == number)).localCheckpoint())
        left = (time.monotonic() - started) / (number + 1) * (count - number - 1)
        report(f"embedded {number + 1} of {count} parts, about {left:.0f} s left")
    return reduce(DataFrame.union, parts)


def _fit_stack(
    judged: DataFrame, width: int, *, has_head: bool, report: Report
) -> list[Transformer]:
    """polarity_raw, embedding -> probability, or `stacked` with a head."""
    # Else the assembler asks for a first row, and so for its vector, whenever a plan is made.
    sized = VectorSizeHint(inputCol="embedding", size=width, handleInvalid="optimistic")
    assembler = VectorAssembler(
        inputCols=["polarity_raw", "embedding"], outputCol="stacked_features"
    )
    regression = LogisticRegression(
        featuresCol="stacked_features",
        labelCol="target",
        # Of numbers of variance 1: without that, Spark's fit finds no step down on these.
        regParam=_PENALTY / judged.count(),
        maxIter=_MAX_ITER,
    )
    if has_head:
        regression.setProbabilityCol("stacked").setRawPredictionCol("stacked_raw")
        regression.setPredictionCol("stacked_class")
    report(f"the embedding's weights, at most {_MAX_ITER} iterations")
    features = assembler.transform(sized.transform(judged)).coalesce(_PARTITIONS)
    judge = regression.fit(alone(features, "target", "stacked_features"))
    check_descended(judge.summary.objectiveHistory)
    return [sized, assembler, judge]


def check_descended(losses: Sequence[float]) -> None:
    """Raise EmbeddingError where a fit ended about where it began, its weights being worth nothing.

    Spark's line search that finds no way down says so in its log only, and returns.
    """
    if losses[-1] > _LEAST_DESCENT * losses[0]:
        raise EmbeddingError(
            f"Spark found no weights for the embedding (loss {losses[0]:.4f} before,"
            f" {losses[-1]:.4f} after the fit); unset SENTIMENT_EMBEDDING_DIR to train without"
        )
