import csv
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.models.store import load_model
from mastodon_assets.sentiment.scoring.score import score
from mastodon_assets.sentiment.train import train
from mastodon_assets.sentiment.training.classes import (
    class_figures,
    distinct_labelled,
    read_calibration,
    served_languages,
)
from mastodon_assets.sentiment.training.corpus import CorpusUnreadableError
from mastodon_assets.sentiment.training.synthetic import synthetic_texts
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.small_models import small_models

_PLACES = ("the station", "platform four", "the library", "room nine", "the harbour", "the square")
_GERMAN = {
    "negative": "das ist leider wirklich ein schlechter Abend am Bahnhof Nummer {}",
    "neutral": "der Zug fährt heute um Viertel nach acht am Bahnhof Nummer {} ab",
    "positive": "das ist zum Glück wirklich ein schöner Abend am Bahnhof Nummer {}",
}


def _write(path: Path, rows: Iterable[tuple[str, str, str]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(("label", "text", "lang"))
        writer.writerows(rows)
    return path


def _labelled() -> Iterator[tuple[str, str, str]]:
    for text, target in list(synthetic_texts())[::7]:
        yield ("positive" if target else "negative"), text, "en"
    for number in range(600):
        place = _PLACES[number % len(_PLACES)]
        yield "neutral", f"the bus number {number} stops at {place} at {number % 12} o'clock", "en"
    for label, text in _GERMAN.items():
        for number in range(200):
            yield label, text.format(f"n{number}"), "de-DE"


def test_with_a_labelled_file_a_model_has_three_classes_and_serves_what_it_was_measured_for(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    calibrated = settings.model_copy(
        update={"sentiment_calibration": _write(tmp_path / "labelled.csv.gz", _labelled())}
    )
    lines: list[str] = []
    try:
        with small_models():
            result = train(lambda: spark, calibrated, lines.append)
        model = load_model(spark, Path(result.path))
    finally:
        with transaction(settings.postgres_url) as connection:
            connection.execute("DELETE FROM masto.sentiment_models")
    classes = result.metrics["classes"]
    assert classes["languages"].keys() == {"de", "en"}
    assert classes["languages"]["en"]["macro_recall"] > 0.8
    low, high = classes["intervals"]["macro_recall"]
    assert low <= classes["macro_recall"] <= high
    assert model.languages == ("de", "en")
    assert any("three classes, held-out texts" in line for line in lines)

    rows = spark.createDataFrame(
        [
            (0, "I love this album, so lovely", "en"),
            (1, "the bus number 7 stops at the library at 3 o'clock", "en"),
            (2, "I hate this album, so awful", "en"),
            (3, "das ist wirklich ein schöner Abend am Bahnhof", "de"),
            (4, "Сегодня прекрасная погода", "ru"),
        ],
        "place int, text string, lang string",
    )
    # The band of a two-class model has no say.
    scored = score(rows, model, low=0.0, high=1.0).orderBy("place").collect()
    assert [row.label_str for row in scored] == [
        "positive",
        "neutral",
        "negative",
        "positive",
        None,
    ]
    for row in scored[:-1]:
        assert row.label_str != "positive" or row.label_bin == 1
        assert row.label_str != "negative" or row.label_bin == 0
    assert scored[-1].reason == "unsupported_language"


def test_a_labelled_text_is_kept_once_and_not_if_its_labels_differ(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [
            ("Fine @ada", "en", 2.0),
            ("fine https://one.example", "en", 2.0),
            ("two minds", "en", 0.0),
            ("two minds", "en", 1.0),
            ("https://one.example", "en", 1.0),
            ("猫はかわいい", "ja", 2.0),
        ],
        "text string, lang string, class double",
    )
    found = distinct_labelled(rows, r"\p{L}").collect()
    assert sorted((row.lang, row["class"]) for row in found) == [("en", 2.0), ("ja", 2.0)]


@pytest.mark.parametrize(
    "content",
    [
        "text,lang\nhello,en\n",
        "label,text,lang\npositive,a,en\nhappy,b,en\n",
        "label,text,lang\npositive,a,en\nnegative,b,\nneutral,c,en\n",
        "label,text,lang\npositive,a,en\nnegative,b,en\n",
        "",
    ],
    ids=["no label", "unknown label", "no language", "two classes", "empty"],
)
def test_another_format_is_a_one_line_error_that_names_the_setting(
    spark: SparkSession, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusUnreadableError) as raised:
        read_calibration(spark, path)
    assert "SENTIMENT_CALIBRATION" in str(raised.value)
    assert "label,text,lang" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_language_near_chance_or_with_few_texts_is_reported_and_not_served() -> None:
    def rows(language: str, count: int, right: int) -> pa.Table:
        classes = [float(place % 3) for place in range(count)]
        predicted = [
            each if place < right else (each + 1) % 3 for place, each in enumerate(classes)
        ]
        return pa.table({"lang": [language] * count, "class": classes, "predicted": predicted})

    figures = class_figures(
        pa.concat_tables([rows("de", 90, 80), rows("hi", 90, 31), rows("it", 9, 9)])
    )
    assert figures["rows"] == 189
    assert set(figures["languages"]) == {"de", "hi", "it"}
    assert figures["languages"]["de"]["accuracy"] == pytest.approx(80 / 90)
    assert served_languages(figures, ["en"], served_from=0.45) == ["de", "en"]


def test_a_language_is_served_if_its_whole_interval_is_above_the_bar() -> None:
    figures = {
        "languages": {
            "de": {"rows": 90, "macro_f1": 0.60, "intervals": {"macro_f1": [0.50, 0.70]}},
            "fr": {"rows": 900, "macro_f1": 0.56, "intervals": {"macro_f1": [0.53, 0.59]}},
            "hi": {"rows": 900, "macro_f1": None, "intervals": {"macro_f1": None}},
        }
    }
    assert served_languages(figures, ["en"], served_from=0.45) == ["de", "en", "fr"]
    assert served_languages(figures, ["en"], served_from=0.52) == ["en", "fr"]
    assert served_languages(figures, [], served_from=0.9) == []
