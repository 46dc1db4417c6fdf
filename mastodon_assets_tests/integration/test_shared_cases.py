"""Small inputs that once failed, kept in a folder next to the project, each through its commands.

`MASTODON_ASSETS_CASES=FOLDER pytest -m '' mastodon_assets_tests/integration/test_shared_cases.py`
runs them. What is right is in the README of that folder.
"""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from mastodon_assets.batch.refresh import refresh_batch_table
from mastodon_assets.batch.tables import BATCH_TABLES
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.reports import charts, queries
from mastodon_assets.sentiment.models.store import load_model
from mastodon_assets.sentiment.scoring.csv_file import score_file
from mastodon_assets.sentiment.scoring.score import score_pending
from mastodon_assets.simulator.recorded import read_statuses
from mastodon_assets.stream.drain import drain
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.commands import Commands, Ended

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mastodon_assets.sentiment.train import TrainingResult

_VARIABLE = "MASTODON_ASSETS_CASES"
CASES = Path(os.environ.get(_VARIABLE, "/nonexistent"))

pytestmark = [
    pytest.mark.usefixtures("stack"),
    pytest.mark.skipif(not CASES.is_dir(), reason=f"{_VARIABLE} names no folder"),
]


class Platform:
    """Files through the commands into tables."""

    def __init__(self, spark: "SparkSession", settings: Settings, commands: Commands) -> None:
        self.spark = spark
        self.settings = settings.model_copy(
            update={"withdrawn_key": SecretStr("a key for tests only")}
        )
        self._commands = commands

    def command(self, *arguments: str) -> Ended:
        return self._commands(*arguments, **as_environment(self.settings))

    def bring_in(self, name: str, instance: str = "one.example") -> dict[str, Any]:
        """The counts of an import that must succeed; its messages are in the tables."""
        ended = self.command("import", str(CASES / name), "--instance", instance, "--json")
        assert ended.status == 0, ended.err
        drain(lambda: self.spark, self.settings, report=print)
        counts: dict[str, Any] = json.loads(ended.out)
        return counts

    def rows(self, query: str) -> list[Any]:
        """The rows of a query, or the values of its one column."""
        with transaction(self.settings.postgres_url, snapshot=True) as connection:
            rows = connection.execute(query.encode()).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def texts(self) -> list[str]:
        return self.rows("SELECT content_txt FROM masto.toots_raw ORDER BY created_at")

    def refresh(self) -> None:
        for name in BATCH_TABLES:
            url = self.settings.postgres_url
            refresh_batch_table(lambda: self.spark, url, name, min_toots=1)


@pytest.fixture
def platform(
    spark: "SparkSession",
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Platform:
    return Platform(spark, settings, Commands(capsys, monkeypatch))


def test_one_person_with_two_domains_is_one_author_and_goes_as_one(platform: Platform) -> None:
    platform.bring_in("split_one.ndjson", "one.example")
    platform.bring_in("split_two.ndjson", "two.example")
    assert platform.rows("SELECT username FROM masto.toots_raw") == ["sam@one.example"] * 2
    for handle in ("sam@social.one.example", "sam@one.example"):
        ended = platform.command("purge", "--account", handle, "--yes")
        assert ended.status == 0, ended.err
        assert platform.texts() == []
        for name, instance in (("one", "one.example"), ("two", "two.example")):
            counts = platform.bring_in(f"split_{name}.ndjson", instance)
            assert counts["withheld"] == {"withdrawn": 1}
        assert platform.texts() == []


def test_posts_for_members_only_are_withheld(platform: Platform) -> None:
    counts = platform.bring_in("local_only.ndjson")
    assert (counts["withheld"], counts["upserts"]) == ({"local_only": 1}, 1)
    assert platform.texts() == ["for everybody"]


def test_the_line_that_servers_put_into_a_quote_is_no_text_of_the_author(
    platform: Platform, synthetic_model: "Callable[[SparkSession, Settings], TrainingResult]"
) -> None:
    platform.bring_in("quote.ndjson")
    texts = platform.texts()
    assert texts[0] == texts[2] != ""
    assert not any("RE:" in text for text in texts)
    synthetic_model(platform.spark, platform.settings)
    score_pending(lambda: platform.spark, platform.settings, print)
    first, bare, third, _ = platform.rows(
        "SELECT prob_pos, reason FROM masto.toots_sentiment ORDER BY created_at"
    )
    assert first == third
    assert first[1] is None
    assert bare == (None, "no_words")


def test_one_old_date_does_not_stretch_the_charts(platform: Platform) -> None:
    platform.bring_in("old_date.ndjson")
    platform.refresh()
    with transaction(platform.settings.postgres_url, snapshot=True) as connection:
        days = queries.toots_every_day(connection)
    assert len(days) <= 8
    assert int(days["n_earlier"].iloc[0]) == 1
    assert "Not shown: 1 post dated before" in charts._outside_line(days)


def test_words_of_cells_summaries_captions_and_articles_stay_apart(platform: Platform) -> None:
    platform.bring_in("tables.ndjson")
    assert [text.split() for text in platform.texts()] == [
        ["food", "mood", "good", "bad"],
        ["spoiler", "alert"],
        ["caption", "text"],
    ]


def test_tags_that_differ_by_their_unicode_form_are_one(platform: Platform) -> None:
    platform.bring_in("tags_twice.ndjson")
    platform.refresh()
    with transaction(platform.settings.postgres_url, snapshot=True) as connection:
        tags = queries.top_hashtag_counts(connection)
    assert dict(tags.itertuples(index=False)) == {"ai": 20, "café": 20}


@pytest.mark.parametrize("name", ["int_id.ndjson", "bom.ndjson", "statuses.ndjson.gz"])
def test_what_people_have_is_read_by_import_demo_and_simulate(
    platform: Platform, name: str
) -> None:
    counts = platform.bring_in(name)
    assert counts["upserts"] == counts["received"] > 0
    # What `demo --from` and `simulate --from` serve.
    assert len(read_statuses(CASES / name)) == counts["received"]


@pytest.mark.parametrize("name", ["array.json", "mastopy.ndjson", "mastodon-archive.json"])
def test_other_forms_of_files_are_read(platform: Platform, name: str) -> None:
    counts = platform.bring_in(name)
    assert counts["upserts"] == counts["received"] > 0


def test_an_export_without_profiles_is_one_line_that_says_what_to_do(platform: Platform) -> None:
    ended = platform.command("import", str(CASES / "outbox.json"), "--instance", "one.example")
    assert ended.status == 1
    assert "outbox.json of Mastodon's export" in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("error: ")]) == 1


def test_posts_with_nulls_are_kept_with_what_is_missing_left_empty(platform: Platform) -> None:
    counts = platform.bring_in("null_content.ndjson")
    # One has a time without a zone, which nobody can place.
    assert (counts["received"], counts["errors"]) == (7, {"not_normalised": 1})
    assert sorted(platform.texts()) == ["", "p", "p", "x", "y", "z"]


def test_every_row_of_a_file_with_a_very_long_text_is_answered(
    platform: Platform,
    synthetic_model: "Callable[[SparkSession, Settings], TrainingResult]",
    tmp_path: Path,
) -> None:
    trained = synthetic_model(platform.spark, platform.settings)
    model = load_model(platform.spark, Path(trained.path))
    source, target = CASES / "long_text.csv", tmp_path / "scored.csv"
    score_file(platform.spark, model, str(source), str(target), low=0.45, high=0.55, report=print)
    csv.field_size_limit(2**31 - 1)
    with source.open(newline="") as given, target.open(newline="") as scored:
        answers = list(csv.DictReader(scored))
        assert len(answers) == len(list(csv.DictReader(given)))
    assert all(row["label_str"] or row["reason"] for row in answers)
