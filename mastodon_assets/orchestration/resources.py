"""Dagster's resources: the settings, and Spark as one session per run, started on first use."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_pyspark import LazyPySparkResource
from pydantic import Field, PrivateAttr
from typing_extensions import override

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.orchestration.run_liveness import hold_run_lock
from mastodon_assets.orchestration.sqlite_history import OpenHistory
from mastodon_assets.spark.memory import Workload
from mastodon_assets.spark.session import build_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_MODEL = dg.AssetKey("sentiment_pipeline_model")


class SparkResource(LazyPySparkResource):
    """The Spark session of a run, configured by `spark.session`.

    A run that never uses the session starts no JVM. The session is stopped at the end of the run
    unless it existed before (tests keep one for all their runs).
    """

    spark_config: dict[str, Any] = Field(default_factory=dict)
    _is_own_session: bool = PrivateAttr(default=False)
    _workload: Workload = PrivateAttr(default="stream")

    @override
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Choose the memory of a training if the run has one: a JVM keeps it all its life."""
        super().setup_for_execution(context)
        selected = context.run.asset_selection if context.run else None
        if _MODEL in (selected or ()):
            self._workload = "training"

    def session_for_training(self) -> "SparkSession":
        """Return the session of the run; one that is started now gets the memory of a training."""
        self._workload = "training"
        session: SparkSession = self.spark_session
        return session

    def _init_session(self) -> None:
        from pyspark.sql import SparkSession

        if self._spark_session is not None:
            return
        self._is_own_session = SparkSession.getActiveSession() is None
        self._spark_session = build_session(load_settings(), workload=self._workload)

    @override
    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Stop the session if this run started it."""
        if self._spark_session is not None and self._is_own_session:
            self._spark_session.stop()
        self._spark_session = None
        self._is_own_session = False


class SettingsResource(dg.ConfigurableResource[Any]):
    """The settings of the process that executes an asset; has no run configuration of its own.

    Every asset uses it, so it also marks the process of a run as alive.
    """

    _is_of_run: bool = PrivateAttr(default=False)
    _history: OpenHistory | None = PrivateAttr(default=None)
    _loaded: Settings | None = PrivateAttr(default=None)

    @override
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Hold lock and history of the run, if it is one (a sensor uses the resource as well)."""
        if context.run and context.instance:
            hold_run_lock(context.instance, context.run.run_id)
            self._history = OpenHistory(context.instance, context.run.run_id)
            self._is_of_run = True

    @override
    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close Dagster's history, if it is a run that ends."""
        if self._history is not None:
            self._history.close()

    def load(self) -> Settings:
        """Read and validate environment and `.env`; a run does it once for all its steps.

        Raises:
            SettingsError: A setting is missing or has a value that is not allowed.
        """
        if not self._is_of_run:
            return load_settings()
        self._loaded = self._loaded or load_settings()
        return self._loaded
