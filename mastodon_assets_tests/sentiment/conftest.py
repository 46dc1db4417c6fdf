"""One Spark session and one empty, migrated database for the tests of this folder."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from pyspark.sql import SparkSession

from mastodon_assets.sentiment.store import LoadedModel, load_model
from mastodon_assets.sentiment.train import TrainingResult, train
from mastodon_assets.settings import Settings
from mastodon_assets.warehouse.migrate import migrate

DATABASE = "dev_sentiment"


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="module")
def postgres_url() -> SecretStr:
    server = os.environ.get("DEV_DATABASE_URL")
    if not server:
        pytest.skip("DEV_DATABASE_URL names no PostgreSQL server")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    parts = conninfo_to_dict(server)
    url = SecretStr(
        f"postgresql://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}"
        f"/{DATABASE}"
    )
    migrate(url)
    return url


@pytest.fixture(scope="module")
def settings(postgres_url: SecretStr, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a place where nothing was trained yet; no environment, no `.env`."""
    return Settings.model_validate(
        {
            "database_url": postgres_url,
            "model_dir": tmp_path_factory.mktemp("data") / "models",
        }
    )


@pytest.fixture(scope="module")
def trained(spark: SparkSession, settings: Settings) -> TrainingResult:
    """The synthetic model, registered in the module's database."""
    return train(spark, settings, lambda line: None)


@pytest.fixture(scope="module")
def model(spark: SparkSession, trained: TrainingResult) -> LoadedModel:
    """The same, loaded from its folder."""
    return load_model(spark, trained.path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of research data beside the project, which is no part of it."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "sentiment"
    if not folder.is_dir():
        pytest.skip(f"no research data in {folder}")
    return folder
