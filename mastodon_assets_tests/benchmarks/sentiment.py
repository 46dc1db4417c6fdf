"""Sentiment benchmark: the model and a baseline pipeline, fitted on the same rows.

    python -m mastodon_assets_tests.benchmarks.sentiment --json sentiment.json

All figures are of rows that did not train: the held-out fifth of Sentiment140 and slices of it, its
manual test file, the held-out fifth of the three-class file, the validation file of eight
languages. Rows per second are for the whole pipeline, from text to probability. Rows per CPU second
sum the time of all cores, which a busy machine changes less. `--curve` also fits other n-grams and
buckets; `--encoder` or `--embedding` adds the stacked model; `--only` measures a part; `--rows`
limits the rows of each file, for a quick look.

The eight languages with a sentence encoder, without the other parts. It also says which share of
the recorded statuses each model labels, English alone or in all languages that it serves:

    python -m mastodon_assets_tests.benchmarks.sentiment --only languages --encoder multilingual

The baseline's cleaning (no links, names, tags) runs in training and in scoring, which is better
than the original, and its neutral band is .45 to .55.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import IDF, HashingTF, RegexTokenizer, SQLTransformer, StopWordsRemover
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import load_settings
from mastodon_assets.ingest.api.html_text import html_to_text
from mastodon_assets.sentiment.evaluation.behavioural_suites import suite_figures
from mastodon_assets.sentiment.evaluation.evaluate import METRICS, evaluate
from mastodon_assets.sentiment.evaluation.slices import SLICES
from mastodon_assets.sentiment.features.embedding import Embedding, find_embedding
from mastodon_assets.sentiment.features.encoders.packaged import PACKAGES
from mastodon_assets.sentiment.features.languages import letters_of
from mastodon_assets.sentiment.features.one_pass import in_one_pass
from mastodon_assets.sentiment.features.pipeline import (
    LANGUAGES,
    PipelineParameters,
    cleaning_stages,
    prob_pos,
)
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.score import score
from mastodon_assets.sentiment.training.classes import (
    distinct_labelled,
    languages_of,
    measure_classes,
    read_calibration,
    served_languages,
)
from mastodon_assets.sentiment.training.corpus import distinct_texts, read_corpus, with_templates
from mastodon_assets.sentiment.training.fit import fit_pipeline
from mastodon_assets.sentiment.training.stacked import fit_stacked, in_share
from mastodon_assets.spark.session import build_session
from mastodon_assets_tests.benchmarks.sentiment_embedding import without_head

SHARED = Path(__file__).parents[3] / "shared" / "data" / "sentiment"
_STATUSES = SHARED.parent / "toots" / "statuses.ndjson"
_PARTS = ("two", "three", "languages")
_BASELINE_CLEANING = (
    r"SELECT *, regexp_replace(text, r'https?://\S+|[@#]\S+', '') AS plain FROM __THIS__"
)
_BASELINE_BAND = {"low": 0.45, "high": 0.55}
_CURVE: tuple[dict[str, Any], ...] = (
    {"character_ngrams": ()},
    {"character_ngrams": (4,)},
    {"character_ngrams": (5,)},
    {"buckets": 2**20},
)
_ROUNDS = 5


@dataclass(frozen=True)
class Fitted:
    """A pipeline, and what it took to fit it."""

    pipeline: PipelineModel
    seconds: float
    cpu_seconds: float


def main() -> None:
    arguments = _arguments()
    # First, so that a missing package costs no training.
    embedding = _find_embedding(arguments)
    console = Console(width=132)
    spark = build_session(load_settings(spark_master=arguments.master))
    spark.sparkContext.setLogLevel("ERROR")
    texts = distinct_texts(_some(read_corpus(spark, arguments.corpus), arguments.rows)).cache()
    training, held_out = texts.where("NOT is_held_out"), texts.where("is_held_out").cache()
    console.print(f"{training.count():,} texts train, {held_out.count():,} measure")
    baseline = _timed_fit(lambda: _baseline_pipeline().fit(training))
    parts = arguments.only or _PARTS
    results: dict[str, Any] = {"parameters": asdict(PipelineParameters())}
    if "two" in parts:
        results["two classes"] = _two_classes(training, held_out, baseline, arguments, console)
    if "three" in parts:
        results["three classes"] = _three_classes(training, held_out, baseline, arguments, console)
    if "languages" in parts:
        results["languages"] = _languages(training, baseline, embedding, arguments, console)
    if embedding and parts != ["languages"]:
        results["stacked"] = _stacked(training, held_out, baseline, embedding, arguments, console)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=SHARED / "sentiment140.csv.gz")
    parser.add_argument("--manual", type=Path, default=SHARED / "testdata.manual.2009.06.14.csv.gz")
    parser.add_argument("--classes", type=Path, default=SHARED / "semeval2017_4a_train.csv.gz")
    parser.add_argument("--languages", type=Path, default=SHARED / "umsab_train.csv.gz")
    parser.add_argument("--languages-test", type=Path, default=SHARED / "umsab_val.csv.gz")
    parser.add_argument("--statuses", type=Path, default=_STATUSES)
    parser.add_argument("--master", default="local[*]")
    parser.add_argument("--only", choices=_PARTS, action="append")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--embedding", type=Path, help="as SENTIMENT_EMBEDDING_DIR")
    parser.add_argument("--encoder", choices=("ngrams", *PACKAGES), default="ngrams")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _two_classes(
    training: DataFrame,
    held_out: DataFrame,
    baseline: Fitted,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    spark, default = training.sparkSession, PipelineParameters()
    manual = read_corpus(spark, arguments.manual)
    variants: dict[str, tuple[PipelineParameters, Callable[[], Fitted]]] = {
        "baseline": (default, lambda: baseline)
    }
    for changed in ({}, *(_CURVE if arguments.curve else ())):
        parameters = replace(default, **changed)
        fit = partial(_fit_with, training, parameters, None, console)
        variants[_name(parameters)] = parameters, partial(_timed_fit, fit)
    results: dict[str, Any] = {}
    for name, (parameters, fitted_now) in variants.items():
        fitted = fitted_now()
        results[name] = _measured(
            fitted, baseline, held_out, manual, timed_on=held_out, parameters=parameters
        )
        if name != "baseline":
            model = LoadedModel(name, LANGUAGES, fitted.pipeline)
            results[name]["suites"] = suite_figures(spark, model)
        _print(console, name, results[name], baseline)
    return results


def _measured(
    fitted: Fitted,
    baseline: Fitted,
    held_out: DataFrame,
    manual: DataFrame,
    *,
    timed_on: DataFrame,
    parameters: PipelineParameters,
) -> dict[str, Any]:
    # As a loaded model scores.
    pipeline = in_one_pass(held_out.sparkSession, fitted.pipeline, asdict(parameters))
    scored = _scored(pipeline, held_out).localCheckpoint()
    return {
        "fit_seconds": fitted.seconds,
        "fit_cpu_seconds": fitted.cpu_seconds,
        **_rates(pipeline, baseline.pipeline, timed_on),
        "held out": _figures(scored),
        "manual": _figures(_scored(pipeline, manual)),
        "slices": {
            slice_name: _figures(scored.where(F.rlike("text", F.lit(regex))))
            for slice_name, regex in SLICES.items()
        },
    }


def _stacked(
    training: DataFrame,
    held_out: DataFrame,
    baseline: Fitted,
    embedding: Embedding,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """One fit has two classes and, by its head, three."""
    spark, parameters = training.sparkSession, PipelineParameters()
    rows = _some(read_calibration(spark, arguments.classes), arguments.rows)
    labelled = distinct_labelled(rows, parameters.letters).cache()
    fitted = _timed_fit(
        lambda: fit_stacked(
            with_templates(spark, training),
            parameters,
            embedding,
            train_rows=training.count(),
            report=console.print,
            labelled=labelled.where("NOT is_held_out"),
        )
    )
    three = measure_classes(fitted.pipeline, labelled.where("is_held_out"))
    console.print(f"three classes, held out, stacked: {_summary(three)}")
    labelled.unpersist()
    two = replace(fitted, pipeline=without_head(fitted.pipeline))
    manual = read_corpus(spark, arguments.manual)
    timed_on = held_out.where(in_share(0.3))
    results = _measured(two, baseline, held_out, manual, timed_on=timed_on, parameters=parameters)
    results["suites"] = suite_figures(spark, LoadedModel("stacked", LANGUAGES, two.pipeline))
    _print(console, "stacked", results, baseline)
    return {"two classes": results, "three classes": three}


def _three_classes(
    training: DataFrame,
    held_out_of_two: DataFrame,
    baseline: Fitted,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    parameters = PipelineParameters()
    rows = _some(read_calibration(training.sparkSession, arguments.classes), arguments.rows)
    labelled = distinct_labelled(rows, parameters.letters).cache()
    held_out = labelled.where("is_held_out")
    fitted = _fit_with(training, parameters, labelled.where("NOT is_held_out"), console)
    figures = {
        "baseline": measure_classes(baseline.pipeline, held_out, **_BASELINE_BAND),
        "ours": measure_classes(fitted, held_out),
    }
    for name, own in figures.items():
        console.print(f"three classes, held out, {name}: {_summary(own)}")
    labelled.unpersist()
    # Human labels also move the probability of positive, away from labels by emoticons.
    two = {
        "manual": _figures(_scored(fitted, read_corpus(training.sparkSession, arguments.manual))),
        "held out": _figures(_scored(fitted, held_out_of_two)),
    }
    for where, own in two.items():
        console.print(f"  two of them, {where}: AUC {own['auc']:.3f}, {own['rows']:,} texts")
    return {**figures, "two of them": two}


def _languages(
    training: DataFrame,
    baseline: Fitted,
    embedding: Embedding | None,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    spark = training.sparkSession
    # First, so that a file that cannot be read costs no training.
    statuses = _statuses(spark, arguments.statuses)
    read = read_calibration(spark, arguments.languages)
    test = read_calibration(spark, arguments.languages_test).cache()
    parameters = replace(PipelineParameters(), letters=letters_of(languages_of(read)))
    labelled = _unlike(read, test, parameters.letters).cache()
    models = {"n-grams": _fit_with(training, parameters, labelled, console)}
    if embedding:
        models["stacked"] = fit_stacked(
            with_templates(spark, training),
            parameters,
            embedding,
            train_rows=training.count(),
            report=console.print,
            labelled=labelled,
        )
    figures = {"baseline": measure_classes(baseline.pipeline, test, **_BASELINE_BAND)}
    figures |= {name: measure_classes(model, test) for name, model in models.items()}
    for name, own in figures.items():
        served = served_languages(own, LANGUAGES, served_from=load_settings().sentiment_served_from)
        each = [its["macro_f1"] for its in own["languages"].values()]
        console.print(
            f"all languages, {name}: {_summary(own)}, mean of the languages {np.mean(each):.3f}"
        )
        for language, its in own["languages"].items():
            state = "served" if language in served else "not served"
            console.print(f"  {language}: {_summary(its)}; {state}")
        for languages in (LANGUAGES, served) if name in models else ():
            share = _labelled_share(LoadedModel(name, tuple(languages), models[name]), statuses)
            own[f"share of statuses labelled, {' '.join(languages)}"] = share
            console.print(f"  recorded statuses labelled in {' '.join(languages)}: {share:.1%}")
    return figures


def _statuses(spark: SparkSession, path: Path) -> DataFrame:
    """Return lang and text of recorded statuses; of a boost, those of the boosted post."""
    rows = []
    # Texts may have other line ends than those of the file.
    for line in path.read_bytes().splitlines():
        status = json.loads(line)
        status = status.get("reblog") or status
        rows.append((status.get("language"), html_to_text(status.get("content") or "")))
    return spark.createDataFrame(rows, "lang string, text string")


def _labelled_share(model: LoadedModel, statuses: DataFrame) -> float:
    labelled = score(statuses, model, low=0.45, high=0.55).select("label_str").toArrow()
    return float(1 - labelled["label_str"].null_count / labelled.num_rows)


def _unlike(labelled: DataFrame, test: DataFrame, letters: str) -> DataFrame:
    """Return the labelled texts whose words are not those of a test text."""
    stages = PipelineModel(cleaning_stages(letters))
    known = stages.transform(test).select("words").distinct()
    columns = labelled.columns
    return stages.transform(labelled).join(known, on="words", how="left_anti").select(*columns)


def _find_embedding(arguments: argparse.Namespace) -> Embedding | None:
    return find_embedding(
        load_settings(
            sentiment_encoder=arguments.encoder,
            sentiment_embedding_dir=arguments.embedding,
            spark_master=arguments.master,
        )
    )


def _fit_with(
    training: DataFrame,
    parameters: PipelineParameters,
    labelled: DataFrame | None,
    console: Console,
) -> PipelineModel:
    return fit_pipeline(
        with_templates(training.sparkSession, training),
        parameters,
        train_rows=training.count(),
        report=console.print,
        labelled=labelled,
    )


def _baseline_pipeline() -> Pipeline:
    return Pipeline(
        stages=[
            SQLTransformer(statement=_BASELINE_CLEANING),
            RegexTokenizer(inputCol="plain", outputCol="tokens", pattern=r"\W+"),
            StopWordsRemover(inputCol="tokens", outputCol="kept"),
            HashingTF(inputCol="kept", outputCol="counts", numFeatures=2**18),
            IDF(inputCol="counts", outputCol="features"),
            LogisticRegression(labelCol="target", regParam=0.001),
        ]
    )


def _timed_fit(fit: Callable[[], PipelineModel]) -> Fitted:
    started, cpu = time.monotonic(), _cpu_seconds()
    pipeline = fit()
    return Fitted(pipeline, time.monotonic() - started, _cpu_seconds() - cpu)


def _rates(pipeline: PipelineModel, baseline: PipelineModel, texts: DataFrame) -> dict[str, float]:
    """Rows per second and per CPU second, absolute and relative to the baseline.

    Each is the median of five rounds.

    A round runs both, so that a machine whose speed drifts affects both alike. The first round
    only lets Java compile.
    """
    rows = texts.count()
    rounds = [(_run(pipeline, texts), _run(baseline, texts)) for _ in range(_ROUNDS + 1)][1:]
    (wall, cpu), (baseline_wall, baseline_cpu) = np.median(rounds, axis=0)
    shares = np.median([np.divide(baselines, own) for own, baselines in rounds], axis=0)
    return {
        "rows_per_second": rows / wall,
        "rows_per_cpu_second": rows / cpu,
        "baseline_rows_per_second": rows / baseline_wall,
        "baseline_rows_per_cpu_second": rows / baseline_cpu,
        "share_of_baseline_rows_per_second": float(shares[0]),
        "share_of_baseline_rows_per_cpu_second": float(shares[1]),
    }


def _run(pipeline: PipelineModel, texts: DataFrame) -> tuple[float, float]:
    """Seconds and CPU seconds from text to probability."""
    started, cpu = time.monotonic(), _cpu_seconds()
    probabilities = pipeline.transform(texts).select("probability")
    probabilities.write.format("noop").mode("overwrite").save()
    return time.monotonic() - started, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """CPU seconds of the JVM, the only long-lived child of this process."""
    return float(
        sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))
    )


def _scored(pipeline: PipelineModel, texts: DataFrame) -> DataFrame:
    return pipeline.transform(texts).select("text", "target", prob_pos().alias("prob_pos"))


def _figures(scored: DataFrame) -> dict[str, Any]:
    columns = scored.toArrow()
    return evaluate(columns["target"].to_numpy(), columns["prob_pos"].to_numpy())


def _some(rows: DataFrame, count: int | None) -> DataFrame:
    return rows if count is None else rows.limit(count)


def _name(parameters: PipelineParameters) -> str:
    lengths = " and ".join(map(str, parameters.character_ngrams))
    terms = f"word n-grams, character n-grams of {lengths}" if lengths else "word n-grams"
    return f"{terms}, {parameters.buckets:,} buckets"


def _summary(figures: dict[str, Any]) -> str:
    shown = []
    for name, words in (("macro_recall", "macro-recall"), ("macro_f1", "macro-F1")):
        low, high = figures["intervals"][name]
        shown.append(f"{words} {figures[name]:.3f} ({low:.3f} to {high:.3f})")
    return f"{figures['rows']:,} texts, {', '.join(shown)}"


def _print(console: Console, name: str, result: dict[str, Any], baseline: Fitted) -> None:
    console.print(
        f"[bold]{name}[/bold]: fitted in {result['fit_seconds']:.0f} s"
        f" ({result['fit_cpu_seconds'] / baseline.cpu_seconds:.1f} times the baseline's CPU time),"
        f" {result['rows_per_second']:,.0f} rows/s, the baseline"
        f" {result['baseline_rows_per_second']:,.0f}"
        f" ({result['share_of_baseline_rows_per_second']:.2f} of it),"
        f" {result['rows_per_cpu_second']:,.0f} per CPU second"
        f" ({result['share_of_baseline_rows_per_cpu_second']:.2f} of the baseline's)"
    )
    table = Table("rows that trained nothing", "rows", *METRICS, box=None)
    for where, figures in (
        ("held out", result["held out"]),
        ("manual test file", result["manual"]),
        *result["slices"].items(),
    ):
        table.add_row(where, f"{figures['rows']:,}", *_cells(figures, tuple(METRICS)))
    console.print(table)
    for suite, figure in result.get("suites", {}).items():
        console.print(f"{suite}: {figure}")


def _cells(figures: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    cells = []
    for metric in metrics:
        value, interval = figures[metric], figures["intervals"][metric]
        cells.append(
            "undefined"
            if value is None
            else f"{value:.4f} ({interval[0]:.3f} to {interval[1]:.3f})"
        )
    return cells


if __name__ == "__main__":
    main()
