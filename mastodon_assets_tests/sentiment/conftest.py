"""The synthetic model in the module's database."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.models.store import LoadedModel, load_model
from mastodon_assets.sentiment.train import TrainingResult
from mastodon_assets_tests.support.shared_data import SHARED_DATA


@pytest.fixture(scope="module")
def settings(database_url: SecretStr, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a place where nothing was trained yet; no environment, no `.env`."""
    return Settings.model_validate(
        {
            "database_url": database_url,
            "model_dir": tmp_path_factory.mktemp("data") / "models",
        }
    )


@pytest.fixture(scope="module")
def trained(
    spark: SparkSession,
    settings: Settings,
    synthetic_model: Callable[[SparkSession, Settings], TrainingResult],
) -> TrainingResult:
    """The synthetic model, registered in the module's database."""
    return synthetic_model(spark, settings)


@pytest.fixture(scope="module")
def model(spark: SparkSession, trained: TrainingResult) -> LoadedModel:
    """The same, loaded from its folder."""
    return load_model(spark, Path(trained.path))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of research data next to the project, which is not part of it."""
    folder = SHARED_DATA / "sentiment"
    if not folder.is_dir():
        pytest.skip(f"no research data in {folder}")
    return folder
