"""Commands for sentiment models: `model …` and `score`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mastodon_assets.cli.common import AsJson, flag
from mastodon_assets.cli.console import print_json, print_line, print_table, report
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.spark.jvm_end import jvm_end_explained

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mastodon_assets.sentiment.models.registry import Model
    from mastodon_assets.sentiment.models.store import LoadedModel
    from mastodon_assets.sentiment.scoring.explain import Explanation

_WORDS_SHOWN = 8

model_app = typer.Typer(help="List sentiment models and choose the champion, which scores.")


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.command(rich_help_panel=panel)(score)
    app.add_typer(model_app, name="model", rich_help_panel=panel)


def score(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="A text to label and explain.")
    ] = None,
    lang: Annotated[str, typer.Option(metavar="LANG", help="Language of TEXT.")] = "en",
    file: Annotated[
        str | None,
        typer.Option(
            help="Label the rows of this CSV file instead. It has the columns text and lang;"
            " - is standard input.",
            metavar="IN.csv",
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(help="Write the labelled rows here; - is standard output.", metavar="OUT.csv"),
    ] = "-",
    as_json: AsJson = False,
) -> None:
    """Label a text, or each row of a CSV file, with the champion model.

    For a text, the words that decided are shown. A file keeps its rows and columns, and gets
    prob_pos, label_bin, label_str and reason. Starting Spark takes some seconds.
    """
    if (text is None) == (file is None):
        raise SettingsError("give either a text or --file (see: mastodon-assets score --help)")
    if text is None:
        _score_file(str(file), out)
    else:
        # A byte that is not UTF-8 arrives as half a character, which Spark does not take.
        whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        _score_text(whole, lang, as_json)


@model_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List all models with status, reason and metrics."""
    from mastodon_assets.sentiment.models.registry import all_models
    from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction

    with transaction(
        load_settings().postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
    ) as connection:
        models = all_models(connection)
    if as_json:
        print_json([_described(model) for model in models])
        return
    if not models:
        print_line("no models yet; to train one, materialize the asset sentiment_pipeline_model")
        return
    table = Table(
        "version", "status", "trained", "AUC", "accuracy", "corpus", box=None, pad_edge=False
    )
    for model in models:
        cells = (
            model.version,
            model.status,
            f"{model.trained_at:%Y-%m-%d %H:%M}Z",
            _metric(model, "auc"),
            _metric(model, "accuracy"),
            model.corpus,
        )
        table.add_row(*(Text(cell) for cell in cells))
    print_table(table)
    for model in models:
        print_line(f"{model.version} {model.status}: {model.status_reason}")


@model_app.command("promote")
def promote(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version, as `model list` shows it.")
    ],
    force: Annotated[
        bool, flag("--force", "Also if its metrics are worse than the champion's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a model the champion, which scores from now on."""
    from mastodon_assets.sentiment.models.lifecycle import promote_version

    _print_champion(promote_version(load_settings(), version, force=force), as_json)


@model_app.command("rollback")
def rollback(as_json: AsJson = False) -> None:
    """Restore the previous champion. Each further rollback goes one step back."""
    from mastodon_assets.sentiment.models.lifecycle import roll_back_champion

    _print_champion(roll_back_champion(load_settings()), as_json)


@model_app.command("rescore")
def rescore(as_json: AsJson = False) -> None:
    """Score posts again that another model than the champion scored.

    Each chunk is written as a whole. If interrupted, the next run continues there.
    """
    from mastodon_assets.sentiment.scoring.score import score_pending
    from mastodon_assets.spark.session import build_session

    settings = load_settings()
    result = score_pending(lambda: build_session(settings), settings, report, rescore=True)
    if as_json:
        print_json({"scored": result.scored, "model_version": result.model_version})
    else:
        print_line(
            f"{result.scored:,} posts have a new score by {result.model_version or 'no model'}"
        )


def _loaded(settings: Settings) -> "tuple[SparkSession, LoadedModel]":
    from mastodon_assets.sentiment.models.lifecycle import find_champion
    from mastodon_assets.sentiment.models.store import load_model
    from mastodon_assets.spark.session import build_session
    from mastodon_assets.spark.storage import for_executors

    champion = find_champion(settings)
    report(f"starting Spark and loading model {champion.version}; this takes some seconds")
    spark = build_session(settings)
    folder = for_executors(settings, "the model's path", champion.path)
    return spark, load_model(spark, folder, settings)


@jvm_end_explained()
def _score_file(source: str, target: str) -> None:
    from mastodon_assets.sentiment.scoring.csv_file import score_file

    settings = load_settings()
    spark, model = _loaded(settings)
    outcomes = score_file(
        spark,
        model,
        source,
        target,
        low=settings.neutral_low,
        high=settings.neutral_high,
        report=report,
    )
    for outcome, count in outcomes.most_common():
        report(f"{outcome:<22}{count:>10,}")


@jvm_end_explained()
def _score_text(text: str, lang: str, as_json: bool) -> None:
    from mastodon_assets.sentiment.scoring.explain import explain

    settings = load_settings()
    spark, model = _loaded(settings)
    explanation = explain(
        spark, model, text, lang, low=settings.neutral_low, high=settings.neutral_high
    )
    if as_json:
        print_json(asdict(explanation))
    else:
        _print_explanation(explanation)


def _print_explanation(explanation: "Explanation") -> None:
    if explanation.reason:
        print_line(f"no label: {explanation.reason} (model {explanation.model_version})")
        return
    print_line(
        f"{explanation.label_str}, probability of positive {explanation.prob_pos:.4f}"
        f" (model {explanation.model_version})"
    )
    print_line("change of the log odds by each word, the strongest first:")
    for word, effect in explanation.words[:_WORDS_SHOWN]:
        print_line(f"  {effect:+7.2f}  {word}")


def _described(model: "Model") -> dict[str, object]:
    return {
        "version": model.version,
        "status": model.status,
        "status_reason": model.status_reason,
        "trained_at": model.trained_at.isoformat(),
        "promoted_at": model.promoted_at and model.promoted_at.isoformat(),
        "corpus": model.corpus,
        "path": model.path,
        "metrics": model.metrics,
    }


def _metric(model: "Model", name: str) -> str:
    value = model.metrics.get(name)
    return "" if value is None else f"{value:.4f}"


def _print_champion(model: "Model", as_json: bool) -> None:
    if as_json:
        print_json(_described(model))
        return
    print_line(f"champion: {model.version} ({model.status_reason})")
    print_line("It scores new posts. To score older posts again: mastodon-assets model rescore")
