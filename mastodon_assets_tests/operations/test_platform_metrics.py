"""The numbers of the whole platform, as Prometheus reads them."""

from pathlib import Path

import dagster as dg
from dagster._daemon.types import DaemonHeartbeat
from prometheus_client import CollectorRegistry, generate_latest

from mastodon_assets.config.settings import Settings
from mastodon_assets.operations.platform_metrics import PlatformCollector
from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets.warehouse.database import connect
from mastodon_assets_tests.support.ports import free_port


def _samples(settings: Settings) -> dict[str, str]:
    registry = CollectorRegistry()
    registry.register(PlatformCollector(settings))
    lines = generate_latest(registry).decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("mastodon_assets_"): value for name, value in samples}


def _fill(settings: Settings) -> None:
    with connect(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.sentiment_totals"
            " (day, outcome, model_version, toots_count, prob_sum) VALUES"
            " (current_date, 'positive', 'm', 3, 2), (current_date, 'no_words', 'm', 1, 0),"
            " (current_date - 9, 'no_words', 'm', 99, 0)"
        )
        connection.execute(
            "INSERT INTO masto.stream_gaps"
            " (instance, source, started_at, reason, recovered_count, status)"
            " VALUES ('a', 'public', now(), '', 0, 'open'),"
            " ('b', 'public', now(), '', 0, 'partial')"
        )
        connection.execute(
            "INSERT INTO masto.alerts (fact, kind, what, since, opened_at, closed_at) VALUES"
            " ('a', 'k', 'w', now(), now(), null), ('b', 'k', 'w', now(), null, null),"
            " ('c', 'k', 'w', now(), now(), now())"
        )
        connection.execute(
            "INSERT INTO masto.sentiment_models"
            " (version, trained_at, metrics, corpus, status, path, status_reason)"
            " VALUES ('abc', now(), '{}', 'c', 'champion', 'p', 'r')"
        )


def test_numbers_come_from_the_database_the_disk_and_dagster(settings: Settings) -> None:
    _fill(settings)
    home: Path = dagster_home(settings.mastodon_assets_home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = dg.DagsterRun(job_name="refresh_job")
        instance.add_run(run)
        instance.report_dagster_event(
            dg.DagsterEvent("PIPELINE_START", "refresh_job", message=""), run.run_id
        )
        instance.report_dagster_event(
            dg.DagsterEvent("PIPELINE_SUCCESS", "refresh_job", message=""), run.run_id
        )
        instance.add_daemon_heartbeat(DaemonHeartbeat(1234.0, "SENSOR", "id"))
    samples = _samples(settings)
    assert samples["database_up"] == "1.0"
    assert float(samples["database_bytes"]) > 2**20
    assert float(samples["disk_free_bytes"]) > 0
    assert samples["unscored_share"] == "0.25"
    assert (samples["open_gaps"], samples["open_incidents"]) == ("1.0", "1.0")
    assert samples['champion_info{version="abc"}'] == "1.0"
    assert samples["dagster_heartbeat_timestamp_seconds"] == "1234.0"
    assert float(samples["refresh_last_success_timestamp_seconds"]) > 1e9
    assert float(samples["refresh_duration_seconds"]) >= 0


def test_what_cannot_be_read_has_no_sample(settings: Settings) -> None:
    away = f"postgresql://user:secret@127.0.0.1:{free_port()}/away"
    samples = _samples(Settings(**{**settings.model_dump(), "database_url": away}))
    assert samples.keys() == {"database_up", "disk_free_bytes"}
    assert samples["database_up"] == "0.0"


def test_several_requests_within_ten_seconds_read_once(settings: Settings) -> None:
    seconds = [0.0]
    collector = PlatformCollector(settings, clock=lambda: seconds[0])

    def open_gaps() -> float:
        (metric,) = (m for m in collector.collect() if m.name == "mastodon_assets_open_gaps")
        return metric.samples[0].value

    assert open_gaps() == 0
    _fill(settings)
    assert open_gaps() == 0
    seconds[0] = 10
    assert open_gaps() == 1
