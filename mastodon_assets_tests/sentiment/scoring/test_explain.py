import json

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from mastodon_assets.cli.app import app
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.errors import SettingsError
from mastodon_assets.sentiment.models.lifecycle import NoChampionError, find_champion
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.explain import Explanation, explain
from mastodon_assets.sentiment.train import TrainingResult
from mastodon_assets.warehouse.database import transaction


def _explain(spark: SparkSession, model: LoadedModel, text: str, lang: str = "en") -> Explanation:
    return explain(spark, model, text, lang, low=0.45, high=0.55)


def test_the_words_that_decided_come_first_with_the_sign_of_their_effect(
    spark: SparkSession, model: LoadedModel
) -> None:
    happy = _explain(spark, model, "I am happy today HAPPY")
    assert happy.label_str == "positive"
    word, effect = happy.words[0]
    assert (word, effect > 0) == ("happy", True)
    assert [word for word, _ in happy.words].count("happy") == 1

    turned = dict(_explain(spark, model, "I am not happy").words)
    assert turned["not"] < -0.5


def test_a_text_of_one_word_is_explained_against_even_odds(
    spark: SparkSession, model: LoadedModel
) -> None:
    explained = _explain(spark, model, "happy")
    ((word, effect),) = explained.words
    assert explained.prob_pos is not None
    assert word == "happy"
    assert effect > 0


def test_the_unscored_end_of_a_long_text_has_no_effect(
    spark: SparkSession, model: LoadedModel
) -> None:
    explained = _explain(spark, model, "happy " * 2_000 + "sad " * 5_000)
    assert [word for word, _ in explained.words] == ["happy", "happ"]


@pytest.mark.parametrize(
    ("text", "lang", "reason"),
    [("", "en", "no_words"), ("happy", "ja", "unsupported_language")],
)
def test_a_text_without_a_label_has_a_reason_and_no_words(
    spark: SparkSession, model: LoadedModel, text: str, lang: str, reason: str
) -> None:
    explained = _explain(spark, model, text, lang)
    assert (explained.reason, explained.label_str, explained.words) == (reason, None, ())


def test_the_command_prints_label_probability_and_words(
    spark: SparkSession,
    settings: Settings,
    trained: TrainingResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(app, ["score", "I am so happy"]).stdout
    assert shown.startswith("positive, probability of positive 0.")
    assert f"(model {trained.version})" in shown
    assert "happy" in shown.splitlines()[2]
    # A byte of the shell that is not UTF-8.
    shown = CliRunner().invoke(app, ["score", "I am so happy, caf\udce9"]).stdout
    assert shown.startswith("positive")
    reported = json.loads(CliRunner().invoke(app, ["score", "--json", "I am so happy"]).stdout)
    assert (reported["label_str"], reported["label_bin"], reported["words"][0][0]) == (
        "positive",
        1,
        "happy",
    )
    shown = CliRunner().invoke(app, ["score", "--lang", "ja", "happy"]).stdout
    assert shown == f"no label: unsupported_language (model {trained.version})\n"
    for arguments in ([], ["a text", "--file", "in.csv"]):
        refused = CliRunner().invoke(app, ["score", *arguments]).exception
        assert isinstance(refused, SettingsError)


def test_without_a_champion_it_is_said_how_to_get_one(
    settings: Settings, trained: TrainingResult
) -> None:
    with transaction(settings.postgres_url) as connection:
        connection.execute("UPDATE masto.sentiment_models SET status = 'retired'")
    try:
        with pytest.raises(NoChampionError, match="materialize sentiment_pipeline_model"):
            find_champion(settings)
    finally:
        with transaction(settings.postgres_url) as connection:
            connection.execute("UPDATE masto.sentiment_models SET status = 'champion'")


def test_a_byte_that_is_no_utf_8_is_read_as_a_replacement_character(
    spark: SparkSession, model: LoadedModel
) -> None:
    explained = _explain(spark, model, "I am so happy \udcff")
    assert explained.label_str == "positive"
    assert "\N{REPLACEMENT CHARACTER}" in dict(explained.words)
