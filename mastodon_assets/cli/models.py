"""Commands for sentiment models: `model …` and `score`.

What belongs here: their options and what they print. `cli` registers them.
"""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mastodon_assets.cli.console import report as _report
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import SettingsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mastodon_assets.sentiment.models.registry import Model
    from mastodon_assets.sentiment.models.store import LoadedModel
    from mastodon_assets.sentiment.scoring.explain import Explanation

_SHOWN_WORDS = 8
model_app = typer.Typer(help="Sentiment models: which there are, and which one scores.")
_out = Console(highlight=False, emoji=False)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(model_app, name="model")
    app.command()(score)


def score(
    text: Annotated[str | None, typer.Argument(help="A text to label and explain.")] = None,
    lang: Annotated[str, typer.Option(help="Language of TEXT.")] = "en",
    file: Annotated[
        str | None,
        typer.Option(
            help="Label a CSV file's rows instead: columns text and lang; - reads standard input.",
            metavar="IN.csv",
        ),
    ] = None,
    out: Annotated[
        str, typer.Option(help="Where to; - is standard output.", metavar="OUT.csv")
    ] = "-",
    as_json: _Json = False,
) -> None:
    """Label a text, with the words that decided, or a CSV file, by the champion.

    Starting Spark takes some seconds. A file keeps its rows and columns and gets prob_pos,
    label_bin, label_str and reason.
    """
    if (text is None) == (file is None):
        raise SettingsError("give either a text or --file (see: mastodon-assets score --help)")
    if text is None:
        _score_file(str(file), out)
    else:
        _score_text(text, lang, as_json)


@model_app.command("list")
def list_models(as_json: _Json = False) -> None:
    """Every model with its status, why it has it, and what was measured."""
    from mastodon_assets.sentiment.models.registry import all_models
    from mastodon_assets.warehouse.database import transaction

    with transaction(load_settings().postgres_url, snapshot=True) as connection:
        models = all_models(connection)
    if as_json:
        sys.stdout.write(json.dumps([_described(model) for model in models]) + "\n")
        return
    if not models:
        _out.print("no models yet; to train one, materialize sentiment_pipeline_model")
        return
    table = Table("version", "status", "trained", "AUC", "accuracy", "corpus", box=None)
    for model in models:
        cells = (
            model.version,
            model.status,
            f"{model.trained_at:%Y-%m-%d %H:%M}Z",
            _figure(model, "auc"),
            _figure(model, "accuracy"),
            model.corpus,
        )
        table.add_row(*(Text(cell) for cell in cells))
    _out.print(table)
    for model in models:
        _out.print(Text(f"{model.version} {model.status}: {model.status_reason}"), soft_wrap=True)


@model_app.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="As `model list` shows it.")],
    force: Annotated[
        bool, typer.Option("--force", help="Even where it measured worse than the champion.")
    ] = False,
) -> None:
    """Make a model the champion: the one that scores from now on."""
    from mastodon_assets.sentiment.models.lifecycle import promote_version

    _print_champion(promote_version(load_settings(), version, force=force))


@model_app.command("rollback")
def rollback() -> None:
    """Make the champion before this one champion again; once more goes one further back."""
    from mastodon_assets.sentiment.models.lifecycle import roll_back_champion

    _print_champion(roll_back_champion(load_settings()))


@model_app.command("rescore")
def rescore() -> None:
    """Score again, by the champion, every toot that another model scored.

    In chunks, each written as a whole: broken off, it goes on there the next time.
    """
    from mastodon_assets.sentiment.scoring.score import score_pending
    from mastodon_assets.spark.session import build_session

    settings = load_settings()
    result = score_pending(build_session(settings), settings, _report, rescore=True)
    _out.print(f"{result.scored:,} toots have a new score by {result.model_version or 'no model'}")


def _loaded(settings: Settings) -> "tuple[SparkSession, LoadedModel]":
    from mastodon_assets.sentiment.models.lifecycle import find_champion
    from mastodon_assets.sentiment.models.store import load_model
    from mastodon_assets.spark.session import build_session
    from mastodon_assets.spark.storage import for_executors

    champion = find_champion(settings)
    _report(f"starting Spark and loading model {champion.version}: some seconds")
    spark = build_session(settings)
    folder = for_executors(settings, "the model's path", champion.path)
    return spark, load_model(spark, folder, settings)


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
        report=_report,
    )
    for outcome, count in outcomes.most_common():
        _report(f"{outcome:<22}{count:>10,}")


def _score_text(text: str, lang: str, as_json: bool) -> None:
    from mastodon_assets.sentiment.scoring.explain import explain

    settings = load_settings()
    spark, model = _loaded(settings)
    explanation = explain(
        spark, model, text, lang, low=settings.neutral_low, high=settings.neutral_high
    )
    if as_json:
        sys.stdout.write(json.dumps(asdict(explanation), ensure_ascii=False) + "\n")
    else:
        _print_explanation(explanation)


def _print_explanation(explanation: "Explanation") -> None:
    from mastodon_assets.cli.console import escaped

    if explanation.reason:
        _out.print(Text(f"no label: {explanation.reason} (model {explanation.model_version})"))
        return
    _out.print(
        Text(
            f"{explanation.label_str}, probability of positive {explanation.prob_pos:.4f}"
            f" (model {explanation.model_version})"
        ),
        soft_wrap=True,
    )
    _out.print("by how much the log odds fall without each word, the strongest first:")
    for word, effect in explanation.words[:_SHOWN_WORDS]:
        _out.print(Text(f"  {effect:+7.2f}  {escaped(word.encode('utf-8', 'replace'))}"))


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


def _figure(model: "Model", name: str) -> str:
    value = model.metrics.get(name)
    return "" if value is None else f"{value:.4f}"


def _print_champion(model: "Model") -> None:
    _out.print(Text(f"champion: {model.version} ({model.status_reason})"), soft_wrap=True)
    _out.print(
        "New toots are scored by it; to score again those that have a score:"
        " mastodon-assets model rescore",
        soft_wrap=True,
    )
