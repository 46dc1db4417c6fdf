"""The corpus, the trained model, the scores, and the view of labels a day."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.warehouse.tables import TOOTS_SENTIMENT, V_SENTIMENT_DAILY
from mastodon_assets.warehouse.views import view_sql


class SentimentModelConfig(dg.Config):
    """What a run does about the model; the defaults are what the schedule does."""

    action: Literal["train", "promote", "roll_back"] = Field(
        default="train",
        description="train: make the model of the corpus, champion if it is not worse. promote:"
        " make `version` champion. roll_back: make the champion before this one champion again.",
    )
    version: str = Field(default="", description="The model to promote.")
    force: bool = Field(
        default=False, description="Promote the model even where it measured worse."
    )


class TootsSentimentConfig(dg.Config):
    """What a run scores."""

    rescore: bool = Field(
        default=False, description="Also score again what another model than the champion scored."
    )
    rebuild: bool = Field(
        default=False,
        description="Look for what waits among all toots, not only those that changed.",
    )


@dg.asset(group_name="model", kinds={"csv"})
def sentiment_corpus(settings: SettingsResource) -> dg.MaterializeResult:
    """The labelled texts that the model is trained on.

    **Source**: the file named by `SENTIMENT_CORPUS`, in the format of Sentiment140's training file
    (six quoted columns, plain or gzipped, UTF-8 or ISO-8859-1); without it, a small synthetic
    corpus of our own, good for a demo only.

    **Metadata**: where it comes from, and the fingerprint of its content.

    **Raises**: CorpusUnreadableError where the file is missing or of another format.
    """
    from mastodon_assets.sentiment.training.corpus import find_corpus
    from mastodon_assets.spark.storage import storage_path

    loaded = settings.load()
    named = loaded.sentiment_corpus
    corpus = find_corpus(storage_path(loaded, named) if named else None)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(corpus.fingerprint),
        metadata={
            "corpus": corpus.name,
            "is_synthetic": corpus.is_synthetic,
            "fingerprint": corpus.fingerprint,
        },
    )


@dg.asset(group_name="model", kinds={"spark"}, deps=[sentiment_corpus])
def sentiment_pipeline_model(
    context: dg.AssetExecutionContext,
    config: SentimentModelConfig,
    settings: SettingsResource,
    spark: SparkResource,
) -> dg.MaterializeResult:
    """The Spark MLlib pipeline that gives a text its probability of being positive.

    **Trains on**: `sentiment_corpus`, without repeats, four fifths of it; the fifth that measures
    is chosen by a hash of the text.

    With `SENTIMENT_CALIBRATION`, texts that people labelled, it also learns what is neutral, and
    which languages it can serve.

    With `SENTIMENT_EMBEDDING_DIR`, a transformer in ONNX, its vectors are weighed together with the
    n-grams. The model then needs that folder to score; the weights are not copied.

    **Metrics**: AUC, accuracy, macro F1, log loss and calibration error on that fifth; macro-recall
    and macro F1 of three classes, each language's own; the share of negation pairs ordered rightly
    and of texts without a ground left unlabelled.

    **Stored as**: a folder of its own under `MODEL_DIR`, complete before its row in
    `sentiment_models` exists. The row whose status is `champion` is the model that scores: a new
    model takes its place only where it is not worse on the champion's held-out texts and on the
    suites (negation, abstention); run configuration promotes and rolls back.

    **Reproducible by**: its version, a hash of corpus, labelled texts, embedding, code and
    parameters. A version that exists is not trained again.

    **Metadata**: version, status (champion, candidate or retired) and its reason, corpus, the
    metrics, folder; reliability diagram and ROC of the held-out texts, the most telling n-grams.

    **Raises**: CorpusUnreadableError, CorpusTooSmallError, TrainingUnderwayError,
    UnknownModelError, PromotionRefusedError, ModelUnreadableError, EmbeddingError.
    """
    from mastodon_assets.sentiment.models.lifecycle import promote_version, roll_back_champion
    from mastodon_assets.sentiment.models.registry import Model
    from mastodon_assets.sentiment.train import TrainingResult, train
    from mastodon_assets.warehouse.migrate import migrate

    loaded = settings.load()
    migrate(loaded.postgres_url)
    result: Model | TrainingResult
    if config.action == "promote":
        result = promote_version(loaded, config.version, force=config.force)
    elif config.action == "roll_back":
        result = roll_back_champion(loaded)
    else:
        result = train(spark.spark_session, loaded, context.log.info, force=config.force)
    is_synthetic = bool(result.metrics["is_synthetic"])
    if is_synthetic:
        context.log.warning(
            "trained on the synthetic corpus: good for a demo only; set SENTIMENT_CORPUS"
        )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(result.version),
        metadata={
            "version": result.version,
            "status": result.status,
            "status_reason": result.status_reason,
            "was_trained_now": isinstance(result, TrainingResult) and result.trained,
            "corpus": result.corpus,
            "is_synthetic": is_synthetic,
            "path": dg.MetadataValue.path(result.path),
            # Numbers of their own get a plot over time in the web page.
            **{name: value for name, value in result.metrics.items() if isinstance(value, float)},
            "all_metrics": dg.MetadataValue.json(dict(result.metrics)),
            **_explained(result.metrics),
        },
    )


def _explained(metrics: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """Pictures and words, of a model that was trained since they are kept."""
    from mastodon_assets.reports.model_charts import model_figure, ngrams_markdown
    from mastodon_assets.reports.previews import preview_markdown

    if "curves" not in metrics:
        return {}
    return {
        "reliability_and_roc": dg.MetadataValue.md(preview_markdown(model_figure(metrics))),
        "telling_ngrams": dg.MetadataValue.md(ngrams_markdown(metrics["telling_ngrams"])),
    }


@dg.asset(
    group_name="sentiment",
    kinds={"spark", "postgres"},
    deps=["toots_raw", sentiment_pipeline_model],
    description=describe(
        TOOTS_SENTIMENT,
        source="`toots_raw`, scored by the champion of `sentiment_pipeline_model`",
        reads="the rows that have no score yet, or one of another text or without a model, among"
        " those that changed since the last time (all rows after a new champion, or by the"
        " configuration `rebuild: true`); with `rescore` also those that another model scored.",
        writes="only for the version of the row that was scored; scoring twice changes nothing.",
        metadata="`scored` in this run, by label or reason, `model_version`, row count.",
        raises="`ModelUnreadableError` where the champion's folder is missing or damaged;"
        " `EmbeddingError` where SENTIMENT_EMBEDDING_DIR is not the one that it was trained with;"
        " `ServiceUnavailableError`, `MissingTablesError`.",
    ),
    metadata=table_metadata(TOOTS_SENTIMENT),
)
def toots_sentiment(
    context: dg.AssetExecutionContext,
    config: TootsSentimentConfig,
    settings: SettingsResource,
    spark: SparkResource,
) -> dg.MaterializeResult:
    from mastodon_assets.sentiment.scoring.score import score_pending

    loaded = settings.load()
    result = score_pending(
        spark.spark_session,
        loaded,
        context.log.info,
        rescore=config.rescore,
        rebuild=config.rebuild,
    )
    return dg.MaterializeResult(
        metadata={
            "scored": result.scored,
            "scored_by_outcome": dg.MetadataValue.json(result.by_outcome),
            "model_version": result.model_version or "none",
            **row_count(loaded.postgres_url, TOOTS_SENTIMENT),
        }
    )


@dg.asset(
    group_name="sentiment",
    kinds={"postgres", "view"},
    deps=["toots_raw", toots_sentiment],
    code_version=hashlib.sha256(view_sql(V_SENTIMENT_DAILY.name).encode()).hexdigest()[:12],
    description=describe(
        V_SENTIMENT_DAILY,
        source="`sentiment_totals`, which each change of `toots_raw` and `toots_sentiment` moves in"
        " its transaction",
        reads="nothing now; PostgreSQL reads the sums when the view is asked.",
        writes="nothing: the view is made, and made again, by the migrations.",
        metadata="row count.",
        raises="`ServiceUnavailableError`, `MissingTablesError`.",
    ),
    metadata=table_metadata(V_SENTIMENT_DAILY),
)
def v_sentiment_daily(settings: SettingsResource) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata=row_count(settings.load().postgres_url, V_SENTIMENT_DAILY))
