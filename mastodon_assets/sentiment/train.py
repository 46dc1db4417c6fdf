"""Model training: from the settings to a row of `sentiment_models`.

What belongs here: the order of the steps, and the version that decides whether to train at all.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyspark
from pydantic import SecretStr
from pyspark import StorageLevel
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.evaluation.behavioural_suites import suite_figures
from mastodon_assets.sentiment.evaluation.comparison import compare
from mastodon_assets.sentiment.evaluation.diagnostics import diagnose
from mastodon_assets.sentiment.evaluation.evaluate import evaluate
from mastodon_assets.sentiment.evaluation.slices import slice_figures
from mastodon_assets.sentiment.features.embedding import Embedding, find_embedding
from mastodon_assets.sentiment.features.languages import letters_of
from mastodon_assets.sentiment.features.lexicon import lexicon_fingerprint
from mastodon_assets.sentiment.features.pipeline import (
    DEMO_PARAMETERS,
    LANGUAGES,
    PipelineParameters,
    prob_pos,
)
from mastodon_assets.sentiment.models.promotion import needs_comparison
from mastodon_assets.sentiment.models.registry import (
    Model,
    champion,
    find,
    model_version,
    promote,
    register,
)
from mastodon_assets.sentiment.models.store import (
    Description,
    LoadedModel,
    is_complete,
    read_description,
    save_model,
    spark_minor,
)
from mastodon_assets.sentiment.revision import MODEL_REVISION
from mastodon_assets.sentiment.training.classes import (
    Calibration,
    distinct_labelled,
    find_calibration,
    languages_of,
    measure_classes,
    read_calibration,
    served_languages,
)
from mastodon_assets.sentiment.training.corpus import (
    Corpus,
    distinct_texts,
    find_corpus,
    load_corpus,
    with_templates,
)
from mastodon_assets.sentiment.training.fit import fit_pipeline
from mastodon_assets.sentiment.training.stacked import (
    MEASURED_TEXTS,
    SAMPLED_TEXTS,
    fit_stacked,
    in_share,
)
from mastodon_assets.spark.jvm_end import jvm_end_explained
from mastodon_assets.spark.session import is_connect
from mastodon_assets.spark.storage import for_executors, storage_path
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.locks import TRAINING_LOCK

Report = Callable[[str], None]
# Held-out texts that measure a model without an embedding. They go through this process's memory.
_MEASURED_TEXTS = 500_000


class CorpusTooSmallError(PlatformError):
    """Without repeats, the training part does not have both classes."""


class TrainingUnderwayError(PlatformError):
    """Another process is training for the same database."""


@dataclass(frozen=True)
class TrainingResult:
    """The model of the settings; `trained` is False if it existed already.

    `metrics` are those of the row in `sentiment_models`, `status` is candidate, champion or
    retired, `status_reason` says why, and `path` is the absolute path of the model's folder.
    """

    version: str
    metrics: dict[str, Any]
    corpus: str
    trained: bool
    status: str
    status_reason: str
    path: str


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides what a training computes.

    `lexicon` is the fingerprint of the lexicon, None if the fit has none. `served_from` is the
    macro-F1 from which a language is served, None without labelled texts. The language detector is
    no part of it: it chooses which texts are scored, and a model's probabilities do not depend on
    it.
    """

    corpus: Corpus
    calibration: Calibration | None
    embedding: Embedding | None
    parameters: PipelineParameters
    lexicon: str | None
    spark_version: str
    served_from: float | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """Parameters and fingerprints, as the model's metrics keep them."""
        return {
            "parameters": asdict(self.parameters),
            "calibration_sha256": self.calibration.fingerprint if self.calibration else None,
            "embedding_sha256": self.embedding.fingerprint if self.embedding else None,
            "lexicon_sha256": self.lexicon,
            **({"stacked_texts": SAMPLED_TEXTS} if self.embedding else {}),
            # Without labelled texts it decides nothing, so it changes no version.
            **({} if self.served_from is None else {"served_from": self.served_from}),
        }

    @property
    def version(self) -> str:
        """The model's version, the same for the same result."""
        code = code_version(self.spark_version)
        return model_version(self.corpus.fingerprint, self.inputs, code)


@dataclass(frozen=True)
class _Fitted:
    """What `save_model` needs of a training, and the metrics."""

    pipeline: PipelineModel
    metrics: dict[str, Any]
    held_out: pa.Table
    vocabulary: list[str]


@jvm_end_explained()
def train(
    session: Callable[[], SparkSession], settings: Settings, report: Report, *, force: bool = False
) -> TrainingResult:
    """Train the model of SENTIMENT_CORPUS, or of the synthetic corpus, unless it exists.

    With SENTIMENT_CALIBRATION the model has three classes and serves the languages that it was
    measured for. With SENTIMENT_EMBEDDING_DIR the n-grams are stacked with that embedding. The
    version is a hash of everything in the `TrainingPlan`. If its row and folder exist, nothing is
    trained. A new model becomes champion if it is not worse than the present one.

    Args:
        session: returns the session that trains; called only if there is something to train, or
            for the version of Spark Connect's server.
        settings: the settings named above, MODEL_DIR and DATABASE_URL.
        report: gets one line per step.
        force: make the model champion even if it measured worse, or exists already.

    Raises:
        CorpusUnreadableError: a file of texts is missing, damaged or in another format.
        CorpusTooSmallError: the training part does not have both classes.
        TrainingUnderwayError: another process is training for this database.
        EmbeddingError: the embedding is missing or gives no vector.
        SparkEndedError: Spark ran out of memory.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: the database is not migrated.
    """
    is_remote = is_connect(settings)
    spark_version = session().version if is_remote else pyspark.__version__
    plan = plan_training(settings, spark_version, with_lexicon=not is_remote)
    if plan.corpus.is_synthetic:
        report(
            "SYNTHETIC CORPUS: the model learns from a few thousand made-up sentences, for"
            " demonstration only; set SENTIMENT_CORPUS to a file like Sentiment140 for a real one"
        )
    version = plan.version
    model_dir = for_executors(settings, "MODEL_DIR", settings.model_dir).absolute()
    with transaction(settings.postgres_url) as connection:
        known, current = find(connection, version), champion(connection)
        if known and is_complete(storage_path(settings, known.path)):
            if force and known.status != "champion":
                known = promote(connection, version, force=True)
            report(f"model {version} exists ({known.status}); nothing to train")
            return _result(known, trained=False)

    folder = model_dir / version
    with _training_lock(settings.postgres_url):
        # A complete folder without a row: an earlier training ended between the two.
        trained = not is_complete(folder)
        if trained:
            fitted = _fit(session(), settings, plan, current, report)
            save_model(
                model_dir,
                fitted.pipeline,
                Description(
                    version=version,
                    spark_version=plan.spark_version,
                    trained_at=datetime.now(UTC).isoformat(),
                    corpus=plan.corpus.name,
                    languages=fitted.metrics["languages"],
                    parameters=asdict(plan.parameters),
                    metrics={
                        **fitted.metrics,
                        **plan.inputs,
                        "code_version": code_version(plan.spark_version),
                    },
                    embedding=plan.embedding.fingerprint if plan.embedding else None,
                ),
                fitted.held_out,
                fitted.vocabulary,
            )
        described = read_description(folder)
        with transaction(settings.postgres_url) as connection:
            model = register(
                connection,
                version=version,
                trained_at=described.trained_at_time,
                metrics=described.metrics,
                corpus=described.corpus,
                path=folder,
                force=force,
            )
    report(f"model {version} is {model.status} ({model.status_reason}): {folder}")
    return _result(model, trained=trained)


def plan_training(settings: Settings, spark_version: str, *, with_lexicon: bool) -> TrainingPlan:
    """Find what the settings name and return what a training with it would compute.

    Raises:
        CorpusUnreadableError: a file of texts is missing or damaged.
        EmbeddingError: the embedding is missing or gives no vector.
    """
    texts, labelled = settings.sentiment_corpus, settings.sentiment_calibration
    corpus = find_corpus(for_executors(settings, "SENTIMENT_CORPUS", texts) if texts else None)
    return TrainingPlan(
        corpus=corpus,
        calibration=find_calibration(
            for_executors(settings, "SENTIMENT_CALIBRATION", labelled) if labelled else None
        ),
        embedding=find_embedding(settings),
        parameters=DEMO_PARAMETERS if corpus.is_synthetic else PipelineParameters(),
        lexicon=lexicon_fingerprint() if with_lexicon else None,
        spark_version=spark_version,
        served_from=settings.sentiment_served_from if labelled else None,
    )


def code_version(spark_version: str) -> str:
    """Return the code's part of a model's version: the revision and Spark's minor version.

    A change of either gives a new version. So a model that this program cannot load, or would train
    differently, is never taken for the requested one.
    """
    return f"revision {MODEL_REVISION}, Spark {spark_minor(spark_version)}"


def _fit(
    spark: SparkSession,
    settings: Settings,
    plan: TrainingPlan,
    current: Model | None,
    report: Report,
) -> _Fitted:
    started = time.monotonic()
    corpus, parameters, embedding = plan.corpus, plan.parameters, plan.embedding
    # On disk, as everything whose size depends on the corpus.
    texts = distinct_texts(load_corpus(spark, corpus)).persist(StorageLevel.DISK_ONLY)
    labelled = None
    if plan.calibration:
        read = read_calibration(spark, plan.calibration.path)
        parameters = replace(parameters, letters=letters_of(languages_of(read)))
        labelled = distinct_labelled(read, parameters.letters).cache()
    try:
        train_rows = _check_classes(corpus, texts)
        report(f"training on {train_rows:,} distinct texts of {corpus.name}")
        trained_on = texts.where("NOT is_held_out")
        templates = trained_on if corpus.is_synthetic else with_templates(spark, trained_on)
        fit = partial(fit_stacked, embedding=embedding) if embedding else fit_pipeline
        fitted = fit(
            templates,
            parameters,
            train_rows=train_rows,
            report=report,
            labelled=labelled and labelled.where("NOT is_held_out"),
        )
        classes = measure_classes(fitted, labelled.where("is_held_out")) if labelled else None
        held_out = _score_held_out(
            fitted, texts, train_rows, MEASURED_TEXTS if embedding else _MEASURED_TEXTS
        )
        diagnostics, vocabulary = diagnose(fitted, trained_on, train_rows, held_out)
        comparison = {}
        if current is not None and needs_comparison(corpus.name, current.corpus):
            report(f"comparing with the champion {current.version} on its held-out texts")
            seen = templates.select("text")
            if labelled:
                seen = seen.union(labelled.where("NOT is_held_out").select("text"))
            comparison = {"comparison": compare(spark, settings, current, fitted, seen)}
    finally:
        texts.unpersist()
        if labelled:
            labelled.unpersist()
    languages = list(LANGUAGES)
    if classes:
        languages = served_languages(classes, LANGUAGES, served_from=settings.sentiment_served_from)
    metrics = {
        **evaluate(held_out["target"].to_numpy(), held_out["prob_pos"].to_numpy()),
        **diagnostics,
        "slices": slice_figures(held_out),
        **comparison,
        **({"classes": classes} if classes else {}),
        "suites": suite_figures(spark, LoadedModel("candidate", tuple(languages), fitted)),
        "train_rows": train_rows,
        "training_seconds": round(time.monotonic() - started, 1),
        "is_synthetic": corpus.is_synthetic,
        "corpus_sha256": corpus.fingerprint,
        "languages": languages,
        "spark_version": spark.version,
    }
    _report_figures(metrics, report)
    return _Fitted(fitted, metrics, held_out, vocabulary)


def _score_held_out(
    fitted: PipelineModel, texts: DataFrame, train_rows: int, most: int
) -> pa.Table:
    """Return text, target and prob_pos of about `most` held-out texts, one in five of all."""
    measured_on = texts.where("is_held_out").where(in_share(min(1, 4 * most / train_rows)))
    scored = fitted.transform(measured_on)
    return scored.select("text", "target", prob_pos().alias("prob_pos")).toArrow()


def _report_figures(metrics: dict[str, Any], report: Report) -> None:
    report(
        f"held-out texts: {metrics['rows']:,}, AUC {_formatted(metrics['auc'])},"
        f" accuracy {_formatted(metrics['accuracy'])}; {metrics['training_seconds']} s"
    )
    if classes := metrics.get("classes"):
        report(
            f"three classes, held-out texts: {classes['rows']:,}, macro-recall"
            f" {_formatted(classes['macro_recall'])}; languages: {', '.join(metrics['languages'])}"
        )


def _check_classes(corpus: Corpus, texts: DataFrame) -> int:
    counts = {
        row["target"]: int(row["count"])
        for row in texts.where("NOT is_held_out")
        .groupBy("target")
        .agg(F.count("*").alias("count"))
        .collect()
    }
    if len(counts) < 2:
        raise CorpusTooSmallError(
            f"{corpus.name}: without repeats and the held-out fifth, there are"
            f" {int(counts.get(0.0, 0))} negative and {int(counts.get(1.0, 0))} positive texts;"
            " a training needs both"
        )
    return sum(counts.values())


@contextmanager
def _training_lock(postgres_url: SecretStr) -> Iterator[None]:
    """Hold the lock that lets one process train for this database, on any machine.

    A connection of its own holds it, so PostgreSQL releases it however this process ends.
    """
    with closing(connect(postgres_url)) as connection:
        connection.autocommit = True
        locked = connection.execute("SELECT pg_try_advisory_lock(%s)", (TRAINING_LOCK,)).fetchone()
        if locked != (True,):
            raise TrainingUnderwayError(
                "another process is training a model for this database; wait until it ends"
            )
        yield


def _result(model: Model, *, trained: bool) -> TrainingResult:
    return TrainingResult(
        version=model.version,
        metrics=model.metrics,
        corpus=model.corpus,
        trained=trained,
        status=model.status,
        status_reason=model.status_reason,
        path=model.path,
    )


def _formatted(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
