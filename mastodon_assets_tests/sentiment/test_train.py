import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets.sentiment.models.promotion import SYNTHETIC_CORPUS
from mastodon_assets.sentiment.models.registry import Model, champion, find
from mastodon_assets.sentiment.models.store import ModelUnreadableError, is_complete, load_model
from mastodon_assets.sentiment.train import (
    CorpusTooSmallError,
    TrainingResult,
    TrainingUnderwayError,
    code_version,
    train,
)
from mastodon_assets.sentiment.training.corpus import CorpusUnreadableError
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import TRAINING_LOCK
from mastodon_assets_tests.support.databases import left_database
from mastodon_assets_tests.support.small_corpus import write_corpus
from mastodon_assets_tests.support.small_models import tiny_models


def _models(url: SecretStr) -> list[tuple[object, ...]]:
    with transaction(url) as connection:
        return connection.execute(
            "SELECT version, trained_at, metrics, corpus, status, status_reason, path"
            "  FROM masto.sentiment_models ORDER BY version"
        ).fetchall()


def _row(settings: Settings, version: str) -> Model | None:
    with transaction(settings.postgres_url) as connection:
        return find(connection, version)


def _ignore(line: str) -> None:
    pass


def _no_session() -> NoReturn:
    raise AssertionError("started Spark although there is nothing to train")


def test_the_synthetic_model_is_champion_and_marked_everywhere(
    settings: Settings, trained: TrainingResult
) -> None:
    assert trained.status == "champion"
    assert trained.corpus == SYNTHETIC_CORPUS
    assert trained.metrics["is_synthetic"] is True
    assert trained.metrics["auc"] > 0.9
    assert trained.metrics["rows"] > 500
    assert Path(trained.path) == Path(settings.model_dir).absolute() / trained.version
    with transaction(settings.postgres_url) as connection:
        row = champion(connection)
    assert row is not None
    assert row.corpus == SYNTHETIC_CORPUS
    assert row.metrics == trained.metrics
    described = json.loads((Path(trained.path) / "model.json").read_text(encoding="utf-8"))
    assert described["corpus"] == SYNTHETIC_CORPUS
    assert described["languages"] == ["en"]


def test_training_again_trains_nothing_changes_no_row_and_still_warns(
    settings: Settings, trained: TrainingResult
) -> None:
    before = _models(settings.postgres_url)
    lines: list[str] = []
    again = train(_no_session, settings, lines.append)
    assert not again.trained
    assert (again.version, again.path) == (trained.version, trained.path)
    assert _models(settings.postgres_url) == before
    assert any("SYNTHETIC CORPUS" in line for line in lines)


def test_a_forced_training_of_a_model_that_exists_makes_it_champion(
    settings: Settings, trained: TrainingResult
) -> None:
    with transaction(settings.postgres_url) as connection:
        connection.execute(
            "UPDATE masto.sentiment_models SET status = 'candidate', promoted_at = NULL"
        )
    assert train(_no_session, settings, _ignore).status == "candidate"
    forced = train(_no_session, settings, _ignore, force=True)
    assert (forced.trained, forced.status) == (False, "champion")
    row = _row(settings, trained.version)
    assert row is not None
    assert row.status == "champion"
    with transaction(settings.postgres_url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")
    train(_no_session, settings, _ignore)


def test_a_folder_without_a_row_is_registered_and_not_trained_again(
    settings: Settings, trained: TrainingResult
) -> None:
    before = _models(settings.postgres_url)
    with transaction(settings.postgres_url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")
    result = train(_no_session, settings, _ignore)
    assert not result.trained
    assert _models(settings.postgres_url) == before


@pytest.fixture(scope="module")
def small(
    spark: SparkSession, stack: StackConnection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, TrainingResult]]:
    """A small model that may be damaged and trained again, in a database of its own."""
    folder = tmp_path_factory.mktemp("small")
    with left_database(stack) as url:
        settings = Settings.model_validate(
            {
                "database_url": url,
                "model_dir": folder / "models",
                "sentiment_corpus": write_corpus(folder / "corpus.csv.gz"),
            }
        )
        with tiny_models():
            trained = train(lambda: spark, settings, _ignore)
        yield settings, trained


def test_a_half_written_folder_is_neither_read_nor_left(
    spark: SparkSession, small: tuple[Settings, TrainingResult], tmp_path: Path
) -> None:
    settings, trained = small
    model_dir = tmp_path / "models"
    half = model_dir / trained.version
    shutil.copytree(Path(trained.path) / "pipeline", half / "pipeline")
    leftover = model_dir / f".{trained.version}.partial"
    shutil.copytree(Path(trained.path), leftover)
    assert not is_complete(half)
    with pytest.raises(ModelUnreadableError, match="no complete sentiment model"):
        load_model(spark, half)
    with transaction(settings.postgres_url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")

    with tiny_models():
        result = train(lambda: spark, settings.model_copy(update={"model_dir": model_dir}), _ignore)

    assert result.trained
    assert Path(result.path) == half
    assert not leftover.exists()
    assert load_model(spark, half).version == trained.version


def test_a_model_whose_folder_was_deleted_is_trained_again_under_its_row(
    spark: SparkSession, small: tuple[Settings, TrainingResult]
) -> None:
    settings, trained = small
    with tiny_models():
        # The test before this one registered another folder.
        with transaction(settings.postgres_url) as connection:
            connection.execute("DELETE FROM masto.sentiment_models")
        assert not train(_no_session, settings, _ignore).trained
        shutil.rmtree(trained.path)
        with pytest.raises(ModelUnreadableError):
            load_model(spark, Path(trained.path))
        result = train(lambda: spark, settings, _ignore)
    assert result.trained
    assert result.status == "champion"
    assert len(_models(settings.postgres_url)) == 1
    assert load_model(spark, Path(trained.path)).version == trained.version


def test_damage_and_another_spark_are_one_line_errors(
    spark: SparkSession, trained: TrainingResult, tmp_path: Path
) -> None:
    for number, victim in enumerate(
        ["pipeline", "pipeline/stages", "pipeline/metadata/part-00000", "model.json"]
    ):
        folder = tmp_path / str(number) / trained.version
        shutil.copytree(Path(trained.path), folder)
        target = folder / victim
        if target.is_dir():
            shutil.rmtree(target)
        else:
            for part in folder.glob(f"{victim}*"):
                part.unlink()
        with pytest.raises(ModelUnreadableError) as raised:
            load_model(spark, folder)
        assert "\n" not in str(raised.value)
        assert str(folder) in str(raised.value)

    folder = tmp_path / "other" / trained.version
    shutil.copytree(Path(trained.path), folder)
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    described["spark_version"] = "3.5.1"
    (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(ModelUnreadableError, match=r"Spark 3\.5\.1, this is Spark 4"):
        load_model(spark, folder)


def test_another_minor_version_of_spark_is_another_model() -> None:
    assert code_version("4.2.0") == code_version("4.2.1") != code_version("4.3.0")


def test_two_trainings_at_once_do_not_share_a_folder(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    path = _corpus(tmp_path / "corpus.csv", ["good day", "nice day"], ["bad day", "sad day"])
    elsewhere = settings.model_copy(
        update={"model_dir": tmp_path / "models", "sentiment_corpus": path}
    )
    with transaction(settings.postgres_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (TRAINING_LOCK,))
        with pytest.raises(TrainingUnderwayError, match="another process is training"):
            train(lambda: spark, elsewhere, _ignore)


def test_a_corpus_that_cannot_train_is_a_one_line_error_and_leaves_no_row(
    spark: SparkSession, settings: Settings, trained: TrainingResult, tmp_path: Path
) -> None:
    before = _models(settings.postgres_url)
    for path, error in [
        (tmp_path / "nosuch.csv", CorpusUnreadableError),
        (_corpus(tmp_path / "same.csv", ["a day"], ["a day"]), CorpusTooSmallError),
    ]:
        with pytest.raises(error) as raised:
            train(lambda: spark, settings.model_copy(update={"sentiment_corpus": path}), _ignore)
        assert "\n" not in str(raised.value)
    assert _models(settings.postgres_url) == before
    assert [path.name for path in Path(settings.model_dir).iterdir() if path.is_dir()] == [
        trained.version
    ]


def test_on_10_000_rows_of_sentiment140_the_auc_is_at_least_82_percent(
    spark: SparkSession, settings: Settings, shared_data: Path, tmp_path: Path
) -> None:
    import gzip

    sample = tmp_path / "sample.csv"
    with gzip.open(shared_data / "sentiment140.csv.gz", "rb") as rows:
        sample.write_bytes(b"".join(itertools.islice(rows, 10_000)))
    result = train(lambda: spark, settings.model_copy(update={"sentiment_corpus": sample}), _ignore)
    assert result.status == "champion"
    assert result.corpus.startswith("sample.csv sha256:")
    assert result.metrics["auc"] >= 0.82
    again = train(lambda: spark, settings, _ignore)
    assert (again.trained, again.status) == (False, "retired")


def test_a_candidate_trained_on_wrong_labels_is_refused_with_the_reason(
    spark: SparkSession, settings: Settings, fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    # Both corpora hold out the same texts; in the second most labels are swapped. Without
    # templates, nothing corrects it.
    texts = [
        (f"the {thing} looked {word} {when}", target)
        for target, words in ((1.0, _KIND), (0.0, _UNKIND))
        for word, thing, when in itertools.product(words, _THINGS, _WHEN)
    ]
    good = _labelled(tmp_path / "good.csv", texts)
    bad = _labelled(tmp_path / "bad.csv", [(text, _spoilt(text, target)) for text, target in texts])
    elsewhere = settings.model_copy(
        update={"database_url": fresh_database_url, "model_dir": tmp_path / "models"}
    )
    lines: list[str] = []
    with tiny_models():
        first = train(
            lambda: spark, elsewhere.model_copy(update={"sentiment_corpus": good}), _ignore
        )
        second = train(
            lambda: spark, elsewhere.model_copy(update={"sentiment_corpus": bad}), lines.append
        )
    assert (first.status, second.status) == ("champion", "candidate")
    assert second.status_reason.startswith(f"worse than the champion {first.version}: auc -0.")
    assert second.status_reason in lines[-1]
    assert second.metrics["comparison"]["champion"] == first.version


_KIND = ("splendid", "cosy", "graceful", "charming", "tasty", "sparkling")
_UNKIND = ("gloomy", "bleak", "rotten", "grim", "shabby", "filthy")
_THINGS = ("lamp", "bridge", "violin", "river", "kitchen", "tower", "letter", "market")
_WHEN = ("yesterday", "from afar", "at dusk", "in winter", "to us", "up close")


def _spoilt(text: str, target: float) -> float:
    return 1 - target if len(text) % 3 else target


def _labelled(path: Path, rows: list[tuple[str, float]]) -> Path:
    return _corpus(
        path,
        [text for text, target in rows if target == 1],
        [text for text, target in rows if target == 0],
    )


def _corpus(path: Path, positive: list[str], negative: list[str]) -> Path:
    lines = [f'"4","1","","","","{text}"\n' for text in positive]
    lines += [f'"0","1","","","","{text}"\n' for text in negative]
    path.write_text("".join(lines), encoding="utf-8")
    return path
