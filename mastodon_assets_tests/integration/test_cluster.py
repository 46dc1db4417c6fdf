"""The same code on a Spark cluster whose executors see nothing of the driver's disk."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.spark.session import build_session
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.cluster import (
    can_hide_folders,
    driver_environment,
    on_its_own_disk,
    running_cluster,
    running_connect_server,
)
from mastodon_assets_tests.support.records import upsert
from mastodon_assets_tests.support.small_corpus import write_corpus
from mastodon_assets_tests.support.tiny_embedding import write_embedding

pytestmark = [
    pytest.mark.usefixtures("own_servers"),
    pytest.mark.skipif(not can_hide_folders(), reason="no user namespaces (unshare)"),
    # A driver, a master and four more JVMs: slow where the machine is busy.
    pytest.mark.timeout(1500),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one folder that this process and the executors have in common."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[str]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), shared) as url:
        yield url


def run(settings: Settings, *steps: str) -> dict[str, Any]:
    ended = attempt(settings, *steps)
    assert ended.returncode == 0, ended.stderr[:3000] + ended.stderr[-3000:]
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def attempt(settings: Settings, *steps: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mastodon_assets_tests.support.cluster_run", *steps],
        env=driver_environment(settings),
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.mark.parametrize("environment", ["project/.venv", "environment"])
def test_a_worker_has_its_environment_and_its_package_and_nothing_else_of_the_project(
    tmp_path: Path, environment: str
) -> None:
    project, shared = tmp_path / "project", tmp_path / "shared"
    for folder in (project / "mastodon_assets", project / "data", tmp_path / environment, shared):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    listed = on_its_own_disk(
        ["find", str(tmp_path), "/mnt/mastodon_assets", "-type", "f"],
        project,
        kept=[shared, tmp_path / environment],
    )
    found = subprocess.run(listed, capture_output=True, text=True, check=True, timeout=60).stdout
    places = {shared, tmp_path / environment, Path("/mnt/mastodon_assets")}
    assert {Path(line) for line in found.split()} == {place / "file" for place in places}


def test_from_kafka_to_labels_on_workers_without_the_drivers_disk(
    master: str, shared: Path, settings: Settings, produce: Callable[..., None]
) -> None:
    for partition in range(4):
        messages = [
            upsert(f"{partition}{number}", uri=f"u:{partition}:{number}", content="I am so happy")
            for number in range(50)
        ]
        produce(messages, partition)
    corpus = write_corpus(shared / "corpus.csv.gz")
    models = (shared / "models").as_uri()
    embedding = write_embedding(shared / "embedding")
    done = run(
        settings.model_copy(
            update={
                "spark_master": master,
                "model_dir": models,
                "sentiment_corpus": corpus.as_uri(),
                "sentiment_embedding_dir": embedding.as_uri(),
            }
        ),
        *("drain", "batch", "train", "score"),
    )
    assert done["stored"] == 200
    assert done["model"]["status"] == "champion"
    assert done["model"]["path"].startswith(models)
    assert not done["trained_again"]
    assert sum(done["scored"].values()) == 200
    assert set(done["scored"]) <= {"positive", "neutral", "negative"}
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert connection.execute(
            "SELECT toots_count FROM masto.batch_toots_per_day"
        ).fetchall() == [(200,)]


def test_batch_training_and_scoring_go_by_spark_connect_and_the_stream_says_that_it_cannot(
    master: str,
    shared: Path,
    settings: Settings,
    produce: Callable[..., None],
    tmp_path: Path,
) -> None:
    produce([upsert("1")])
    with running_connect_server(tmp_path, master) as server:
        connected = settings.model_copy(
            update={"spark_master": server, "model_dir": (shared / "connect").as_uri()}
        )
        with transaction(settings.postgres_url) as connection:
            connection.execute(
                "INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash,"
                "  favourites, reblogs, replies, is_bot, is_sensitive, instance, status_id, uri,"
                "  username, lang, hashtags, content_txt)"
                " VALUES (1, now(), now(), now(), 1, 0, 0, 0, false, false, 'i', '1', 'u', 'n',"
                "  'en', '{}', 'I am so happy')"
            )
        done = run(connected, "batch", "train", "score")
        refused = attempt(connected, "drain")
    assert done["batch"]["batch_toots_per_day"] == 1
    assert done["model"]["status"] == "champion"
    assert sum(done["scored"].values()) == 1
    error = refused.stderr.splitlines()[-1]
    assert "Spark Connect cannot pass the stream's batches to the writer" in error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, "MODEL_DIR="),
        ({"sentiment_corpus": Path("corpus.csv")}, "SENTIMENT_CORPUS=corpus.csv: is on this"),
    ],
)
def test_a_local_path_is_refused_before_executors_look_for_it_on_their_own_disks(
    settings: Settings, changes: dict[str, Any], error: str
) -> None:
    from mastodon_assets.sentiment.train import train

    def no_session() -> NoReturn:
        raise AssertionError("started Spark before the paths were checked")

    update = {"spark_master": "spark://127.0.0.1:1", **changes}
    with pytest.raises(SettingsError, match=error) as raised:
        train(no_session, settings.model_copy(update=update), print)
    assert "\n" not in str(raised.value)


def test_a_master_that_does_not_answer_is_one_line() -> None:
    for master in ("spark://127.0.0.1:1,127.0.0.1:2", "sc://127.0.0.1:1/;token=planted"):
        with pytest.raises(ServiceUnavailableError, match="check SPARK_MASTER") as raised:
            build_session(load_settings(spark_master=master))
        assert "planted" not in str(raised.value)
