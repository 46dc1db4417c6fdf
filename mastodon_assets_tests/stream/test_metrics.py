from functools import partial

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import mastodon_assets.stream.metrics as progress_module
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.kafka.topics import TopicState, read_topic
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.stream.metrics import StreamProgress, StreamReport
from mastodon_assets.stream.query import Batch
from mastodon_assets_tests.support.ports import free_port


def _progress(
    settings: Settings, registry: CollectorRegistry | None = None
) -> tuple[StreamProgress, list[StreamReport]]:
    reports: list[StreamReport] = []
    progress = StreamProgress(
        settings,
        on_report=reports.append,
        registry=registry or CollectorRegistry(),
    )
    return progress, reports


def nowhere(servers: str) -> Settings:
    return load_settings(kafka_bootstrap_servers=servers, kafka_topic="a_topic")


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the stream logs."""
    caplog.set_level("INFO", logger="mastodon_assets.stream")
    return caplog


def test_a_minute_is_one_line_with_rate_and_lag(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    progress, reports = _progress(settings)
    progress.add(Batch(BatchCounts(stored=3, rejected=1), 0.5))
    progress.report_periodically({})
    assert log.messages == []
    monkeypatch.setattr(progress_module, "REPORT_SECONDS", 0)
    progress.report_periodically({})
    progress.report_periodically({})
    assert log.messages[0].startswith(f"{settings.kafka_topic}: 4 messages in 0 s (")
    assert log.messages[0].endswith("1 batches of 0.50 s, lag 0")
    assert log.messages[1].endswith("no messages in 0 s, lag 0")
    assert [report.counts.messages for report in reports] == [4]


def test_a_large_batch_has_a_line_of_its_own(log: pytest.LogCaptureFixture) -> None:
    progress, _ = _progress(nowhere("127.0.0.1:1"))
    progress.add(Batch(BatchCounts(stored=9_999), 1))
    progress.add(Batch(BatchCounts(stored=10_000), 2))
    assert log.messages == ["a_topic: batch of 10,000 messages in 2.0 s (5,000/s)"]


def test_prometheus_reads_what_became_of_the_messages() -> None:
    registry = CollectorRegistry()
    progress, _ = _progress(nowhere("127.0.0.1:1"), registry)
    progress.add(Batch(BatchCounts(stored=3, stale=2), 0.25))
    progress.add_restart()
    reported = generate_latest(registry).decode()
    for line in (
        'mastodon_assets_stream_messages_total{outcome="stored"} 3.0',
        'mastodon_assets_stream_messages_total{outcome="deletes"} 0.0',
        "mastodon_assets_stream_batch_seconds_count 1.0",
        "mastodon_assets_stream_restarts_total 1.0",
        "mastodon_assets_stream_lag_messages NaN",
    ):
        assert line in reported


@pytest.mark.usefixtures("loopback")
def test_without_kafka_the_lag_is_unknown_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_module, "_LAG_SECONDS", 0)
    progress, _ = _progress(nowhere(f"127.0.0.1:{free_port()}"))
    state = TopicState("a_topic", "topic-id", earliest={0: 0}, end={0: 7})
    with monkeypatch.context() as patched:
        patched.setattr(progress_module, "read_topic", lambda *_: state)
        progress.report_periodically({0: 5})
    monkeypatch.setattr(progress_module, "read_topic", partial(read_topic, timeout=0.2))
    progress.report_periodically({0: 5})
    progress.report_periodically({0: 5})
    assert len(log.messages) == 1
    assert "the lag is unknown: Kafka at 127.0.0.1" in log.messages[0]
