"""Dagster's resources: the settings, and Spark as one session per run, started on first use."""

from typing import Any

import dagster as dg
from dagster_pyspark import LazyPySparkResource
from pydantic import Field, PrivateAttr

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.spark.session import build_session


class SparkResource(LazyPySparkResource):
    """The session that `spark_session.spark_config` describes.

    A run without a Spark step starts no JVM. The session is stopped at the end of the run, unless
    it was there before (tests keep one for all their runs).
    """

    spark_config: dict[str, Any] = Field(default_factory=dict)
    _is_own_session: bool = PrivateAttr(default=False)

    def _init_session(self) -> None:
        from pyspark.sql import SparkSession

        if self._spark_session is not None:
            return
        self._is_own_session = SparkSession.getActiveSession() is None
        self._spark_session = build_session(load_settings())

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._spark_session is not None and self._is_own_session:
            self._spark_session.stop()
        self._spark_session = None
        self._is_own_session = False


class SettingsResource(dg.ConfigurableResource):
    """Gives assets the settings of the process they run in; has no configuration of its own."""

    def load(self) -> Settings:
        """Environment and `.env`, validated. Raises: SettingsError."""
        return load_settings()
