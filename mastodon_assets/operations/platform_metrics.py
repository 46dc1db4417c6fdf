"""Metrics of the whole platform: database, disk, refreshes, champion, incidents.

What belongs here: what no single process counts. The stream and the dashboard serve them, because
Dagster, which they watch, must not be the one that serves them.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mastodon_assets.alerts.facts import free_bytes
from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.dagster_home import existing_dagster_home
from mastodon_assets.orchestration.run_history import DagsterState, read_dagster_state
from mastodon_assets.warehouse.database import FEED_SECONDS, transaction

# The age of the numbers at most; several Prometheus servers cost no more than one.
_SECONDS_KEPT = 10.0
_TEXTS = {
    "database_up": "1 while PostgreSQL answers.",
    "database_bytes": "Size of the database.",
    "disk_free_bytes": "Free bytes on the disk of the state folder.",
    "refresh_last_success_timestamp_seconds": "End of the last refresh that succeeded.",
    "refresh_duration_seconds": "How long that refresh took.",
    "dagster_heartbeat_timestamp_seconds": "Last sign of life of Dagster's daemon.",
    "champion_info": "1, with the version of the model that scores.",
    "unscored_share": "Share of the posts of yesterday and today that have no label.",
    "open_gaps": "Gaps that are not filled, of all sources.",
    "open_incidents": "Incidents that are open.",
}


@dataclass(frozen=True)
class _Database:
    size: int
    unscored_share: float | None
    open_gaps: int
    open_incidents: int
    champion: str | None


class PlatformCollector(Collector):
    """Reads the numbers on a request of Prometheus; what cannot be read has no sample."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Create the collector.

        Args:
            settings: They name database, state folder and Dagster's folder.
            clock: Seconds of a clock that never goes back.
        """
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._metrics: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples; a registry asks for names first."""
        return [_family(name) for name in _TEXTS]

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, at most ten seconds old."""
        with self._lock:
            if self._clock() - self._read_at >= _SECONDS_KEPT:
                self._metrics = list(_read(self._settings))
                self._read_at = self._clock()
            return self._metrics


def platform_numbers(settings: Settings) -> Callable[[], bytes]:
    """Return a function that returns the metrics in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(PlatformCollector(settings))
    return partial(generate_latest, registry)


def _read(settings: Settings) -> Iterator[Metric]:
    home = settings.mastodon_assets_home.absolute()
    yield _gauge("disk_free_bytes", free_bytes(home))
    database = _read_database(settings)
    yield _gauge("database_up", database is not None)
    if database is not None:
        yield _gauge("database_bytes", database.size)
        yield _gauge("unscored_share", database.unscored_share)
        yield _gauge("open_gaps", database.open_gaps)
        yield _gauge("open_incidents", database.open_incidents)
        champion = _family("champion_info")
        if database.champion is not None:
            champion.add_metric((database.champion,), 1)
        yield champion
    dagster = _read_dagster(existing_dagster_home(settings.mastodon_assets_home))
    if dagster is not None:
        yield _gauge("refresh_last_success_timestamp_seconds", dagster.refreshed_at)
        yield _gauge("refresh_duration_seconds", dagster.refresh_seconds)
        yield _gauge("dagster_heartbeat_timestamp_seconds", dagster.heartbeat_at)


def _read_database(settings: Settings) -> _Database | None:
    try:
        with transaction(
            settings.postgres_url, snapshot=True, max_seconds=FEED_SECONDS
        ) as connection:
            row = connection.execute(
                """
                SELECT pg_database_size(current_database()),
                       (SELECT (1 - coalesce(sum(toots_count) FILTER (WHERE outcome IN
                                         ('positive', 'negative', 'neutral')), 0)
                                   / nullif(sum(toots_count), 0))::float8
                          FROM masto.sentiment_totals WHERE day >= current_date - 1),
                       (SELECT count(*) FROM masto.stream_gaps WHERE status = 'open'),
                       (SELECT count(*) FROM masto.alerts
                         WHERE opened_at IS NOT NULL AND closed_at IS NULL),
                       (SELECT version FROM masto.sentiment_models WHERE status = 'champion')
                """
            ).fetchone()
    except PlatformError:
        return None
    assert row is not None
    return _Database(*row)


def _read_dagster(home: Path | None) -> DagsterState | None:
    try:
        return None if home is None else read_dagster_state(home)
    except PlatformError:
        return None


def _gauge(name: str, value: float | None) -> Metric:
    family = _family(name)
    if value is not None:
        family.add_metric((), value)
    return family


def _family(name: str) -> GaugeMetricFamily:
    labels = ("version",) if name == "champion_info" else ()
    return GaugeMetricFamily(f"mastodon_assets_{name}", _TEXTS[name], labels=labels)
