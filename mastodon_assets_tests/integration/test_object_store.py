"""Corpus and models in an object store by s3a://, at a server that speaks S3.

Needs `moto_server` in PATH (`pip install 'moto[server]'`); the jars are fetched once.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.cluster import driver_environment
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.small_corpus import write_corpus

pytestmark = [
    pytest.mark.usefixtures("own_servers"),
    pytest.mark.skipif(shutil.which("moto_server") is None, reason="no moto_server here"),
]

_SECONDS = 60
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
# Where Spark finds a store that is not Amazon's.
_PLACE = """\
spark.hadoop.fs.s3a.endpoint {url}
spark.hadoop.fs.s3a.endpoint.region eu-central-1
spark.hadoop.fs.s3a.path.style.access true
spark.hadoop.fs.s3a.connection.ssl.enabled false
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The URL of a server with the bucket `sentiment`."""
    port = free_port()
    with (tmp_path / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            ["moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                _put(f"{url}/sentiment", b"")
                break
            except OSError:
                # Its first request takes seconds.
                assert time.monotonic() < deadline, (tmp_path / "moto.log").read_text("utf-8")
                time.sleep(0.2)
        yield url
    finally:
        server.kill()
        server.wait()


def _put(url: str, content: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    request = Request(url, data=content, method="PUT", headers=headers)  # noqa: S310
    with urlopen(request, timeout=_SECONDS):  # noqa: S310
        pass


def _run(settings: Settings, store: str, *steps: str) -> dict[str, object]:
    environment = driver_environment(settings) | _CREDENTIALS
    with (Path(environment["SPARK_CONF_DIR"]) / "spark-defaults.conf").open("a") as file:
        file.write(_PLACE.format(url=store))
    ended = subprocess.run(
        [sys.executable, "-m", "mastodon_assets_tests.support.cluster_run", *steps],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr[:3000] + ended.stderr[-3000:]
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def test_a_model_is_trained_of_a_corpus_and_loaded_again_in_an_object_store(
    settings: Settings, store: str, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus.csv.gz")
    _put(f"{store}/sentiment/corpora/corpus.csv.gz", corpus.read_bytes())
    there = settings.model_copy(
        update={
            "model_dir": "s3a://sentiment/models",
            "sentiment_corpus": "s3a://sentiment/corpora/corpus.csv.gz",
        }
    )
    trained = _run(there, store, "train")
    assert trained["model"]["status"] == "champion"  # type: ignore[index]
    assert trained["model"]["path"].startswith("s3a://sentiment/models/")  # type: ignore[index]
    # Found again by its files, whose sizes are compared.
    assert trained["trained_again"] is False
    _insert_post(settings.postgres_url)
    # Another process, which has only the store.
    scored = _run(there, store, "score")["scored"]
    assert isinstance(scored, dict)
    # Which label it is does not matter: without a model there would be none.
    assert sum(scored.values()) == 1
    assert set(scored) <= {"positive", "neutral", "negative"}


def _insert_post(url: SecretStr) -> None:
    with transaction(url) as connection:
        connection.execute(
            "INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash,"
            "  favourites, reblogs, replies, is_bot, is_sensitive, instance, status_id, uri,"
            "  username, lang, hashtags, content_txt)"
            " VALUES (1, now(), now(), now(), 1, 0, 0, 0, false, false, 'i', '1', 'u', 'n',"
            "  'en', '{}', 'happy day so happy')"
        )
