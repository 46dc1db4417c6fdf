"""The corpus, the trained model, the scores, and the view of labels per day."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mastodon_assets.config.settings import Settings
from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.orchestration.retries import retried_after_outages
from mastodon_assets.warehouse.tables import TOOTS_SENTIMENT, V_SENTIMENT_DAILY

_CHAMPION = "champion_is_complete"


class SentimentModelConfig(dg.Config):
    """Run configuration of the model; the schedule uses the defaults."""

    action: Literal["train", "promote", "roll_back"] = Field(
        default="train",
        description="train: train a model on the corpus; it becomes champion if it is not worse."
        " promote: make `version` the champion. roll_back: restore the previous champion.",
    )
    version: str = Field(default="", description="Version of the model to promote.")
    force: bool = Field(default=False, description="Promote the model even if it measured worse.")


class TootsSentimentConfig(dg.Config):
    """Run configuration of the scores."""

    rescore: bool = Field(
        default=False,
        description="Also score posts again that another model than the champion scored.",
    )
    rebuild: bool = Field(
        default=False,
        description="Look for posts to score among all posts, not only among those that changed.",
    )


@dg.asset(group_name="model", kinds={"csv"})
def sentiment_corpus(settings: SettingsResource) -> dg.MaterializeResult:
    """The labelled texts that the model is trained on.

    **Source**: the file named by `SENTIMENT_CORPUS`, in the format of Sentiment140's training file
    (six quoted columns, plain or gzipped, UTF-8 or ISO-8859-1). Without it, a small synthetic
    corpus that is good for a demo only.

    **Rows**: one per labelled text.

    **Metadata**: name of the corpus, whether it is synthetic, fingerprint of its content.

    **Raises**: `CorpusUnreadableError` if the file is missing or has another format.
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


@dg.asset(
    group_name="model",
    kinds={"spark"},
    deps=[sentiment_corpus],
    check_specs=[
        dg.AssetCheckSpec(
            _CHAMPION,
            asset="sentiment_pipeline_model",
            description="There is a champion, and its folder has everything that was written.",
        )
    ],
)
@retried_after_outages
def sentiment_pipeline_model(
    context: dg.AssetExecutionContext,
    config: SentimentModelConfig,
    settings: SettingsResource,
    spark: SparkResource,
) -> dg.MaterializeResult:
    """The Spark MLlib pipeline that gives a text its probability of being positive.

    **Trains on**: four fifths of `sentiment_corpus`, without repeated texts. The remaining fifth is
    held out and measures the model; a hash of the text decides.

    With `SENTIMENT_CALIBRATION`, a file of texts labelled by people, the model also learns what is
    neutral and which languages it can serve.

    With `SENTIMENT_ENCODER`, a sentence encoder in a package, or `SENTIMENT_EMBEDDING_DIR`, a
    transformer in ONNX, the model weighs the encoder's vectors together with the n-grams. It then
    needs that package or folder to score; the weights are not copied.

    **Metrics**: AUC, accuracy, macro F1, log loss and calibration error on the held-out fifth;
    macro recall and macro F1 of three classes, also per language; the share of negation pairs in
    the right order, and of texts without evidence that stay unlabelled.

    **Stored as**: a folder of its own in `MODEL_DIR`, complete before its row in `sentiment_models`
    exists. The model whose row has the status `champion` scores. A new model replaces it only if it
    is not worse on the champion's held-out texts and on the behavioural suites (negation,
    abstention). The run configuration promotes and rolls back.

    **Reproducible by**: its version, a hash of corpus, labelled texts, embedding, code and
    parameters. An existing version is not trained again.

    **Metadata**: version, status (champion, candidate or retired) and its reason, corpus, metrics,
    folder; the model card (data, languages, figures with intervals, slices, known failures, what it
    is not for), which is also `card.md` in the folder; reliability diagram and ROC curve of the
    held-out texts, the most informative n-grams.

    **Raises**: `CorpusUnreadableError`, `CorpusTooSmallError`, `TrainingUnderwayError`,
    `UnknownModelError`, `PromotionRefusedError`, `ModelUnreadableError`, `EmbeddingError`,
    `SparkEndedError` if Spark ran out of memory.
    """
    from mastodon_assets.sentiment.models.card import model_card
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
        result = train(spark.session_for_training, loaded, context.log.info, force=config.force)
    is_synthetic = bool(result.metrics["is_synthetic"])
    if is_synthetic:
        context.log.warning(
            "the model is trained on the synthetic corpus, good for a demo only; set"
            " SENTIMENT_CORPUS"
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
            # Each number of its own gets a plot over time on the web page.
            **{name: value for name, value in result.metrics.items() if isinstance(value, float)},
            "all_metrics": dg.MetadataValue.json(dict(result.metrics)),
            "model_card": dg.MetadataValue.md(
                model_card(result.version, result.corpus, result.metrics)
            ),
            **_diagnostics(result.metrics),
        },
        check_results=[
            dg.AssetCheckResult(check_name=_CHAMPION, passed=_has_complete_champion(loaded))
        ],
    )


def _has_complete_champion(settings: Settings) -> bool:
    from mastodon_assets.sentiment.models.registry import champion
    from mastodon_assets.sentiment.models.store import is_complete
    from mastodon_assets.spark.storage import storage_path
    from mastodon_assets.warehouse.database import transaction

    with transaction(settings.postgres_url, snapshot=True) as connection:
        model = champion(connection)
    return model is not None and is_complete(storage_path(settings, model.path))


def _diagnostics(metrics: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """Return diagrams and n-grams; older models were stored without them."""
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
        reads="the rows without a score for their present text, among those that changed since the"
        " last run. After a new champion, or with the run configuration `rebuild: true`, it looks"
        " at all rows; with `rescore: true` also at rows that another model scored.",
        writes="a score only for the version of the row that was scored; scoring twice changes"
        " nothing.",
        metadata="`scored` in this run, in total and by label or reason; `model_version`; row"
        " count.",
        raises="`ModelUnreadableError` if the champion's folder is missing or damaged;"
        " `EmbeddingError` if its encoder is missing or not the one it was trained with;"
        " `SparkEndedError` if Spark ran out of memory; `ServiceUnavailableError`,"
        " `MissingTablesError`.",
    ),
    metadata=table_metadata(TOOTS_SENTIMENT),
)
@retried_after_outages
def toots_sentiment(
    context: dg.AssetExecutionContext,
    config: TootsSentimentConfig,
    settings: SettingsResource,
    spark: SparkResource,
) -> dg.MaterializeResult:
    """Score the posts that have no score for their present text."""
    from mastodon_assets.sentiment.scoring.score import score_pending

    loaded = settings.load()
    result = score_pending(
        lambda: spark.spark_session,
        loaded,
        context.log.info,
        rescore=config.rescore,
        rebuild=config.rebuild,
    )
    return dg.MaterializeResult(
        metadata={
            "scored": result.scored,
            "relabelled": result.relabelled,
            "scored_by_outcome": dg.MetadataValue.json(result.by_outcome),
            "model_version": result.model_version or "none",
            **row_count(loaded.postgres_url, TOOTS_SENTIMENT),
        }
    )


@dg.asset(
    group_name="sentiment",
    kinds={"postgres", "view"},
    deps=["toots_raw", toots_sentiment],
    description=describe(
        V_SENTIMENT_DAILY,
        source="`sentiment_totals`, which each change of `toots_raw` and `toots_sentiment` updates"
        " in its transaction",
        reads="only the number of rows; PostgreSQL reads the sums when the view is queried.",
        writes="nothing: the migrations create and replace the view.",
        metadata="row count.",
        raises="`ServiceUnavailableError`, `MissingTablesError`.",
    ),
    metadata=table_metadata(V_SENTIMENT_DAILY),
)
@retried_after_outages
def v_sentiment_daily(settings: SettingsResource) -> dg.MaterializeResult:
    """Count the view's rows."""
    return dg.MaterializeResult(metadata=row_count(settings.load().postgres_url, V_SENTIMENT_DAILY))
