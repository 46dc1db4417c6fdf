"""The model's asset and commands on a database with one trained model and copies of it."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from mastodon_assets.cli.app import app
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.assets.drift import scores_have_not_drifted
from mastodon_assets.orchestration.assets.sentiment import (
    _has_complete_champion,
    sentiment_corpus,
    sentiment_pipeline_model,
)
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.sentiment.models.registry import PromotionRefusedError, all_models, register
from mastodon_assets.sentiment.models.store import read_held_out
from mastodon_assets.warehouse.database import transaction

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mastodon_assets.sentiment.train import TrainingResult


@pytest.fixture(scope="module")
def settings(database_url: SecretStr, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.model_validate(
        {"database_url": database_url, "model_dir": tmp_path_factory.mktemp("data") / "models"}
    )


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def first(
    spark: "SparkSession",
    settings: Settings,
    synthetic_model: "Callable[[SparkSession, Settings], TrainingResult]",
) -> str:
    """The version of the synthetic model, trained and champion."""
    return synthetic_model(spark, settings).version


@pytest.fixture
def second(settings: Settings, first: str) -> str:
    """A copy of it, registered later as a candidate that measured worse; nothing else is there."""
    version = first[::-1]
    model_dir = Path(settings.model_dir).absolute()
    _copy(model_dir / first, model_dir / version)
    with transaction(settings.postgres_url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models WHERE version <> %s", (first,))
        connection.execute(
            "UPDATE masto.sentiment_models"
            "   SET status = 'champion', promoted_at = coalesce(promoted_at, now())"
        )
        (model,) = all_models(connection)
        low = {"difference": -0.03, "low": -0.04, "high": -0.02}
        register(
            connection,
            version=version,
            trained_at=model.trained_at + timedelta(days=1),
            metrics={
                **model.metrics,
                "comparison": {
                    "champion": first,
                    "differences": {"auc": low, "accuracy": low},
                },
            },
            corpus=model.corpus,
            path=model_dir / version,
        )
    return version


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    described = json.loads((target / "model.json").read_text(encoding="utf-8"))
    described["version"] = target.name
    (target / "model.json").write_text(json.dumps(described), encoding="utf-8")


def _statuses(settings: Settings) -> dict[str, str]:
    with transaction(settings.postgres_url) as connection:
        return {model.version: model.status for model in all_models(connection)}


def _materialize(**config: Any) -> dict[str, Any]:
    result = dg.materialize(
        [sentiment_corpus, sentiment_pipeline_model],
        selection=[sentiment_pipeline_model],
        resources={"settings": SettingsResource(), "spark": SparkResource()},
        run_config={"ops": {"sentiment_pipeline_model": {"config": config}}},
    )
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_a_refused_candidates_reason_is_in_the_list(second: str) -> None:
    listed = _run("model", "list")
    assert listed.exit_code == 0
    assert f"{second} candidate: worse than the champion" in listed.stdout
    newest, oldest = json.loads(_run("model", "list", "--json").stdout)
    assert (newest["version"], newest["status"]) == (second, "candidate")
    assert newest["status_reason"].startswith("worse than the champion")
    assert (oldest["status"], oldest["metrics"]["is_synthetic"]) == ("champion", True)


def test_the_asset_promotes_by_configuration_and_its_metadata_say_why(
    settings: Settings, first: str, second: str, spark: "SparkSession"
) -> None:
    with pytest.raises(PromotionRefusedError, match="worse than the champion"):
        _materialize(action="promote", version=second)
    metadata = _materialize(action="promote", version=second, force=True)
    assert metadata["version"] == second
    assert metadata["status"] == "champion"
    assert metadata["status_reason"] == "promoted by hand"
    assert metadata["was_trained_now"] is False
    assert _statuses(settings) == {first: "retired", second: "champion"}
    assert _materialize(action="roll_back")["version"] == first
    assert _statuses(settings) == {first: "champion", second: "retired"}


def test_the_commands_promote_and_roll_back(settings: Settings, first: str, second: str) -> None:
    refused = _run("model", "promote", second)
    assert isinstance(refused.exception, PromotionRefusedError)
    assert "--force" in str(refused.exception)
    promoted = _run("model", "promote", second, "--force")
    assert promoted.stdout.startswith(f"champion: {second} (promoted by hand)")
    assert "mastodon-assets model rescore" in promoted.stdout
    assert _run("model", "rollback").stdout.startswith(f"champion: {first} (rolled back from")
    assert _statuses(settings) == {first: "champion", second: "retired"}


def test_a_model_that_cannot_be_read_is_not_promoted(
    settings: Settings, first: str, second: str
) -> None:
    described_path = Path(settings.model_dir).absolute() / second / "model.json"
    described = json.loads(described_path.read_text(encoding="utf-8"))
    described_path.write_text(json.dumps({**described, "spark_version": "3.5.1"}), encoding="utf-8")
    refused = _run("model", "promote", second, "--force").exception
    assert isinstance(refused, PlatformError)
    assert "was trained with Spark 3.5.1" in str(refused)
    assert "materialize sentiment_pipeline_model" in str(refused)
    described_path.unlink()
    refused = _run("model", "promote", second, "--force").exception
    assert "no complete sentiment model" in str(refused)
    assert _statuses(settings) == {first: "champion", second: "candidate"}


def test_a_champion_whose_folder_is_damaged_fails_its_check(
    settings: Settings, first: str, second: str
) -> None:
    assert _has_complete_champion(settings)
    described = Path(settings.model_dir).absolute() / first / "model.json"
    moved = described.rename(described.with_name("moved"))
    assert not _has_complete_champion(settings)
    moved.rename(described)


def test_the_models_metadata_show_its_curves_and_its_strongest_ngrams(
    first: str, second: str, spark: "SparkSession"
) -> None:
    metadata = _materialize()
    assert metadata["version"] == first
    assert metadata["model_card"].startswith(f"# Sentiment model {first}")
    assert "| negation |" in metadata["model_card"]
    assert metadata["reliability_and_roc"].startswith("![preview](data:image/png;base64,")
    words = {line.split(" | ")[0].strip("| ") for line in metadata["telling_ngrams"].splitlines()}
    assert any("good" in word or "happy" in word or "love" in word for word in words)


def _drift(settings: Settings) -> dict[str, dg.AssetCheckResult]:
    made = scores_have_not_drifted(settings=SettingsResource())
    assert isinstance(made, Iterator)
    results = list(made)
    assert all(result.severity == dg.AssetCheckSeverity.WARN for result in results)
    return {str(result.check_name): result for result in results}


def _put_scores(settings: Settings, version: str, rows: list[tuple[str, float, str]]) -> None:
    """Rows of label, probability and text, each scored a second after the one before."""
    with transaction(settings.postgres_url) as connection:
        connection.execute("TRUNCATE masto.toots_sentiment")
        connection.cursor().executemany(
            "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, prob_pos, label_bin,"
            " lang, label_str, model_version, text) VALUES (%(id)s, now(),"
            " now() + %(id)s * interval '1 second', %(p)s, (%(p)s >= .5)::int, 'en', %(label)s,"
            " %(version)s, %(text)s)",
            [
                {"id": number, "p": p, "label": label, "version": version, "text": text}
                for number, (label, p, text) in enumerate(rows)
            ],
        )


def test_drift_is_warned_of_with_figures_and_few_rows_say_nothing(
    settings: Settings, first: str, second: str
) -> None:
    texts = read_held_out(Path(settings.model_dir).absolute() / first).to_pylist()
    known = [
        ("positive" if row["prob_pos"] >= 0.5 else "negative", row["prob_pos"], row["text"])
        for row in texts
    ]
    _put_scores(settings, first, known[:500])
    few = _drift(settings)
    assert all(result.passed for result in few.values())
    assert "too few rows" in str(few["label_shares_are_stable"].metadata["finding"].value)

    _put_scores(settings, first, (known * 3)[:1000])
    assert {name: result.passed for name, result in _drift(settings).items()} == dict.fromkeys(
        (
            "label_shares_are_stable",
            "unscored_share_is_stable",
            "probabilities_are_as_trained",
            "words_are_known",
        ),
        True,
    )

    strange = [("neutral", 0.5, "xylophone zugzwang quokka")] * 500
    _put_scores(settings, first, (known * 3)[:500] + strange)
    # Nothing is like the texts of a model for demonstrations.
    demo = _drift(settings)
    assert {name for name, result in demo.items() if not result.passed} == {
        "label_shares_are_stable"
    }
    with transaction(settings.postgres_url) as connection:
        connection.execute(
            "UPDATE masto.sentiment_models SET metrics = metrics || '{\"is_synthetic\": false}'"
        )
    drifted = _drift(settings)
    assert {name for name, result in drifted.items() if not result.passed} == {
        "label_shares_are_stable",
        "probabilities_are_as_trained",
        "words_are_known",
    }
    assert drifted["label_shares_are_stable"].metadata["label_shift"].value == 1.0
    assert drifted["words_are_known"].metadata["unknown_words"].value == 1.0
