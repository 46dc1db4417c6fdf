"""The endpoint for Prometheus."""

from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter

from mastodon_assets.operations.metrics_endpoint import MetricsPortError, serving_metrics
from mastodon_assets_tests.support.ports import free_port

pytestmark = pytest.mark.usefixtures("loopback")


def test_what_is_counted_can_be_read_on_loopback_and_not_after_the_end() -> None:
    registry, port = CollectorRegistry(), free_port()
    Counter("events", "Received.", registry=registry).inc(3)
    with serving_metrics(registry, port), urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert b"events_total 3.0" in answer.read()
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/metrics")


def test_a_taken_port_is_named() -> None:
    port = free_port()
    with (
        serving_metrics(CollectorRegistry(), port),
        pytest.raises(MetricsPortError, match=f":{port} "),
        serving_metrics(CollectorRegistry(), port),
    ):
        raise AssertionError("two servers on one port")
