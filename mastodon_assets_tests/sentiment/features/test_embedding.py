"""N-grams stacked with an embedding, a model of a few words that the test writes."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from pydantic import SecretStr
from pyspark.ml.functions import vector_to_array
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.operations.doctor import check_embedding
from mastodon_assets.sentiment.features.embedding import (
    Embedding,
    find_embedding,
)
from mastodon_assets.sentiment.features.encoders.interface import EmbeddingError
from mastodon_assets.sentiment.features.encoders.onnx_folder import OnnxFolder
from mastodon_assets.sentiment.features.pipeline import label_str
from mastodon_assets.sentiment.models.lifecycle import promote_version
from mastodon_assets.sentiment.models.store import (
    Description,
    LoadedModel,
    load_model,
    save_model,
)
from mastodon_assets.sentiment.scoring.micro_batch import MicroBatchScorer
from mastodon_assets.sentiment.scoring.score import score
from mastodon_assets.sentiment.train import TrainingResult, train
from mastodon_assets.sentiment.training.stacked import check_descended, fit_stacked
from mastodon_assets.sentiment.training.synthetic import synthetic_texts
from mastodon_assets.warehouse.database import connect
from mastodon_assets_tests.support.records import on_partition, staged, upsert
from mastodon_assets_tests.support.small_models import (
    SMALL_PARAMETERS,
    small_models,
    two_folds,
)
from mastodon_assets_tests.support.tiny_embedding import WIDTH, write_embedding


def _named(folder: Path | str | None, **more: Any) -> Settings:
    return Settings.model_validate({"sentiment_embedding_dir": folder, **more})


# The folder, without Spark.


@pytest.mark.parametrize("with_integers", [False, True])
def test_a_text_has_the_same_vector_of_length_1_in_every_batch(
    tmp_path: Path, with_integers: bool
) -> None:
    encoder = OnnxFolder(write_embedding(tmp_path / "tiny", with_integers=with_integers))
    texts = ["good", "a good and happy day, not a bad one " * 40, "", " \n", "猫", "sad"]
    together = encoder.vectors(texts)
    assert together.shape == (len(texts), WIDTH)
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal(encoder.vectors([text])[0], vector)
        assert np.linalg.norm(vector) == pytest.approx(1.0 if text.strip() else 0.0, abs=1e-6)


def test_inner_layers_are_read_if_the_model_gives_them(tmp_path: Path) -> None:
    last = OnnxFolder(write_embedding(tmp_path / "last")).vectors(["good", ""])
    folder = write_embedding(tmp_path / "inner", inner_layers=2)
    vectors = OnnxFolder(folder).vectors(["good", ""])
    assert vectors.shape == (2, 2 * WIDTH)
    # One of the two is the last one's tenfold, so that their lengths differ.
    assert vectors[0] == pytest.approx(np.hstack([last[0], last[0]]) / np.sqrt(2))
    assert not vectors[1].any()


@pytest.mark.usefixtures("processes")
def test_the_runtime_sends_no_usage_data(tmp_path: Path) -> None:
    """If it did, it would look for a folder to store a machine id, and warn without one."""
    folder = write_embedding(tmp_path / "tiny")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"), "/proc/nowhere")
    # In CI it sends nothing by itself.
    others = {name: value for name, value in os.environ.items() if name != "CI"}
    others.pop("ORT_DISABLE_TELEMETRY", None)
    code = (
        "import pathlib, sys\n"
        "from mastodon_assets.sentiment.features.encoders.onnx_folder import OnnxFolder\n"
        "print(OnnxFolder(pathlib.Path(sys.argv[1])).width)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**others, **nowhere},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (made.stdout.strip(), made.stderr) == (str(WIDTH), "")


def test_an_embedding_is_identified_by_its_weights_and_tokenizer_in_any_folder(
    tmp_path: Path,
) -> None:
    found = find_embedding(_named(write_embedding(tmp_path / "tiny")))
    assert found is not None
    # The layout of sentence transformers' repositories.
    moved = write_embedding(tmp_path / "else where")
    (moved / "onnx").mkdir()
    (moved / "model.onnx").rename(moved / "onnx" / "model.onnx")
    assert find_embedding(_named(moved.as_uri())) == Embedding(moved, found.fingerprint, WIDTH)
    other = find_embedding(_named(write_embedding(tmp_path / "other", {"good": 2.0})))
    assert other is not None
    assert other.fingerprint != found.fingerprint
    assert find_embedding(_named(None)) is None
    assert [finding.level for finding in check_embedding(_named(moved))] == ["green"]


@pytest.mark.parametrize(
    ("broken", "content", "reason"),
    [
        ("model.onnx", None, "cannot read"),
        ("tokenizer.json", None, "cannot read"),
        ("model.onnx", b"no model", "give no vector for a text"),
        ("tokenizer.json", b"{}", "give no vector for a text"),
    ],
)
def test_a_folder_without_a_usable_model_is_one_line(
    tmp_path: Path, broken: str, content: bytes | None, reason: str
) -> None:
    folder = write_embedding(tmp_path / "tiny")
    (folder / broken).unlink()
    if content is not None:
        (folder / broken).write_bytes(content)
    with pytest.raises(EmbeddingError, match=reason) as raised:
        find_embedding(_named(folder))
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)
    (finding,) = check_embedding(_named(folder))
    assert (finding.level, finding.text) == ("red", str(raised.value).partition("; ")[0])


@pytest.mark.parametrize(
    ("folder", "master"),
    [("hdfs://one.example/tiny", "local[2]"), (Path("tiny"), "spark://127.0.0.1:1")],
)
def test_a_folder_that_the_executors_cannot_open_is_refused(
    folder: Path | str, master: str
) -> None:
    with pytest.raises(SettingsError, match=r"SENTIMENT_EMBEDDING_DIR=.*file:///"):
        find_embedding(_named(folder, spark_master=master))


def test_without_the_extra_the_setting_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddingError, match="onnxruntime and tokenizers; install the extra"):
        find_embedding(_named(tmp_path))


def test_a_fit_that_did_not_lower_its_loss_is_an_error() -> None:
    check_descended([0.69, 0.5])
    with pytest.raises(EmbeddingError, match="no weights for the embedding"):
        check_descended([0.6931, 0.6931, 0.6930])


# The model lifecycle with an embedding.


@pytest.fixture(scope="module")
def with_embedding(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = write_embedding(tmp_path_factory.mktemp("embedding") / "tiny")
    return settings.model_copy(update={"sentiment_embedding_dir": folder})


@pytest.fixture(scope="module")
def stacked(
    spark: SparkSession, trained: TrainingResult, with_embedding: Settings
) -> TrainingResult:
    """The stacked model, trained when the n-grams alone are champion."""
    lines: list[str] = []
    with small_models():
        result = train(lambda: spark, with_embedding, lines.append)
    assert any(line.startswith("embedded 1 of 1 parts") for line in lines)
    return result


@pytest.fixture(scope="module")
def stacked_model(
    spark: SparkSession, stacked: TrainingResult, with_embedding: Settings
) -> LoadedModel:
    return load_model(spark, Path(stacked.path), with_embedding)


def _probabilities(spark: SparkSession, model: LoadedModel, *texts: str) -> dict[str, float | None]:
    rows = pa.table({"lang": ["en"] * len(texts), "text": list(texts)})
    scored = score(spark.createDataFrame(rows), model, low=0.45, high=0.55).toArrow()
    return dict(zip(scored["text"].to_pylist(), scored["prob_pos"].to_pylist(), strict=True))


def test_it_is_registered_compared_and_not_trained_again(
    spark: SparkSession,
    trained: TrainingResult,
    stacked: TrainingResult,
    with_embedding: Settings,
) -> None:
    assert stacked.version != trained.version
    embedding = find_embedding(with_embedding)
    assert embedding is not None
    assert stacked.metrics["embedding_sha256"] == embedding.fingerprint
    assert stacked.metrics["comparison"]["champion"] == trained.version
    assert stacked.metrics["auc"] > 0.9
    assert stacked.metrics["suites"].keys() == trained.metrics["suites"].keys()
    with small_models():
        assert not train(lambda: spark, with_embedding, lambda line: None).trained


def test_a_text_without_words_gets_no_label_with_an_embedding_either(
    spark: SparkSession, model: LoadedModel, stacked_model: LoadedModel
) -> None:
    texts = ("it was splendiferous", "https://one.example")
    alone = _probabilities(spark, model, *texts)
    both = _probabilities(spark, stacked_model, *texts)
    assert alone[texts[0]] != both[texts[0]]
    assert alone[texts[1]] is both[texts[1]] is None


@pytest.fixture(scope="module")
def rare_texts(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Embedding, list[tuple[str, float]], tuple[str, str]]:
    """Texts and targets, many with a word that no other has, and the embedding that knows it.

    The words of the last are a positive and a negative one that no text has.
    """
    generator = random.Random(1)
    words = {
        "".join(generator.choices("bdfgklmnprst", k=9)): 6.0 if number % 2 else -6.0
        for number in range(400)
    }
    embedding = find_embedding(
        _named(write_embedding(tmp_path_factory.mktemp("rare") / "tiny", words))
    )
    assert embedding is not None
    bad, good, *known = words
    texts = [(f"it was {word}", float(words[word] > 0)) for word in known]
    return embedding, list(synthetic_texts())[::5] + texts, (good, bad)


def test_words_that_only_the_embedding_knows_change_score_and_class(
    spark: SparkSession, rare_texts: tuple[Embedding, list[tuple[str, float]], tuple[str, str]]
) -> None:
    embedding, texts, (good, bad) = rare_texts
    neutral = [(f"the bus number {n} stops at the square", 1.0) for n in range(300)]
    labelled = [(text, 2 * target) for text, target in texts] + neutral
    with two_folds():
        fitted = fit_stacked(
            spark.createDataFrame(texts, "text string, target double"),
            SMALL_PARAMETERS,
            embedding,
            train_rows=len(texts),
            report=lambda line: None,
            labelled=spark.createDataFrame(labelled, "text string, class double"),
        )
    words = [f"it was {good}", "the bus number 7 stops", f"it was {bad}"]
    judged = fitted.transform(spark.createDataFrame([(word,) for word in words], "text string"))
    found = {
        row["text"]: (row["of_two"][1], row["label"])
        for row in judged.select(
            "text",
            vector_to_array(F.col("stacked")).alias("of_two"),
            label_str(0.5, 0.5).alias("label"),
        ).collect()
    }
    assert [found[word][1] for word in words] == ["positive", "neutral", "negative"]
    assert found[words[0]][0] > 0.75
    assert found[words[2]][0] < 0.25


def test_a_model_with_a_packaged_encoder_is_saved_and_loaded_whatever_the_setting_is(
    spark: SparkSession, tmp_path: Path
) -> None:
    embedding = find_embedding(Settings.model_validate({"sentiment_encoder": "multilingual"}))
    assert embedding is not None
    texts = list(synthetic_texts())[::20]
    with two_folds():
        fitted = fit_stacked(
            spark.createDataFrame(texts, "text string, target double"),
            replace(SMALL_PARAMETERS, max_iter=5),
            embedding,
            train_rows=len(texts),
            report=lambda line: None,
        )
    described = Description(
        version="v1",
        spark_version=spark.version,
        trained_at="2026-01-01T00:00:00+00:00",
        corpus="a few texts",
        languages=["de", "en"],
        parameters={},
        metrics={"embedding_sha256": embedding.fingerprint},
        embedding=embedding.fingerprint,
    )
    held_out = pa.table({"text": ["good"], "target": [1.0], "prob_pos": [0.9]})
    folder = save_model(tmp_path, fitted, described, held_out, ["good"])
    assert "the encoder multilingual" in (folder / "card.md").read_text(encoding="utf-8")

    loaded = load_model(spark, folder, load_settings())
    judged = ("das ist wunderbar, ich liebe es", "das ist schrecklich, ich hasse es")
    found = _probabilities(spark, loaded, *judged)
    again = _probabilities(spark, LoadedModel("v1", ("en", "de"), fitted), *judged)
    assert found == again
    better, worse = (found[text] for text in judged)
    # Trained on English alone: the encoder transfers.
    assert better is not None
    assert worse is not None
    assert better > worse


def test_without_its_embedding_a_model_neither_loads_nor_becomes_champion(
    spark: SparkSession, settings: Settings, stacked: TrainingResult, tmp_path: Path
) -> None:
    other = write_embedding(tmp_path / "other", {"good": 2.0})
    for named, reason in ((None, "none is set"), (other, "other has")):
        without = settings.model_copy(update={"sentiment_embedding_dir": named})
        with pytest.raises(EmbeddingError, match=reason) as raised:
            load_model(spark, Path(stacked.path), without)
        assert "\n" not in str(raised.value)
        with pytest.raises(EmbeddingError, match=reason):
            promote_version(without, stacked.version, force=True)


def test_a_batch_of_the_stream_has_the_probability_that_the_asset_gives(
    spark: SparkSession,
    database_url: SecretStr,
    with_embedding: Settings,
    stacked: TrainingResult,
    stacked_model: LoadedModel,
    tmp_path: Path,
) -> None:
    promote_version(with_embedding, stacked.version, force=True)
    texts = ("it was splendiferous", "a sad day", "what a happy day, " * 20 + "yes")
    rows = staged(on_partition([upsert(str(n), content=text) for n, text in enumerate(texts)]))
    with connect(database_url) as connection:
        live = _scores_of(connection, spark, with_embedding, rows, tmp_path)
        without = with_embedding.model_copy(update={"sentiment_embedding_dir": None})
        lines: list[str] = []
        assert _scores_of(connection, spark, without, rows, tmp_path, lines) == {}
    assert [line for line in lines if "needs the embedding" in line]
    asset = _probabilities(spark, stacked_model, *texts)
    assert live.keys() == asset.keys()
    for text, probability in live.items():
        assert probability == pytest.approx(asset[text], abs=1e-9)


def _scores_of(
    connection: psycopg.Connection[Any],
    spark: SparkSession,
    settings: Settings,
    rows: pa.Table,
    folder: Path,
    lines: list[str] | None = None,
) -> dict[str, float]:
    """By text the probability that the stream writes; the rows are rolled back."""
    from mastodon_assets.stream.merge import prepare_session, write_batch
    from mastodon_assets_tests.support.records import TOPIC

    connection.execute("TRUNCATE masto.toots_raw, masto.toots_sentiment CASCADE")
    prepare_session(connection)
    connection.commit()
    scorer = MicroBatchScorer(spark, settings, folder, (lines if lines is not None else []).append)
    with connection.transaction(force_rollback=True):
        scorer.prepare(connection)
        write = scorer(rows)
        write_batch(connection, rows, {TOPIC: "topic-id"})
        write(connection)
        return dict(
            connection.execute("SELECT text, prob_pos FROM masto.toots_sentiment").fetchall()
        )
