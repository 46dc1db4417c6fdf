"""The ingester's metrics for Prometheus, collected from the counts of the workers.

What belongs here: names and labels of the metrics. The endpoint is in
`operations.metrics_endpoint`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_LABELS = ("instance", "source")
_PREFIX = "mastodon_assets_ingest_"


@dataclass(frozen=True)
class Reading:
    """The metrics of one source at one moment; zeros for a source that is not read.

    `lag_seconds` is the age of the oldest event that waits to be handled, or the time without an
    acknowledgement while messages wait for one, if that is longer. `seconds_since_last_bytes`
    counts heartbeats too; None without an open stream.
    """

    instance: str
    source: str
    received: int = 0
    published: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0
    withheld: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    reconnects: int = 0
    is_connected: bool = False
    is_silent: bool = False
    is_refused: bool = False
    seconds_since_last_bytes: float | None = None
    events_waiting: int = 0
    messages_in_flight: int = 0
    lag_seconds: float = 0
    gaps: Mapping[str, int] = field(default_factory=dict)
    not_streamed: int = 0
    is_suspicious: bool = False


class IngestCollector(Collector):
    """Collects the readings on each request of Prometheus."""

    def __init__(self, readings: Callable[[], Iterable[Reading]]) -> None:
        self._readings = readings

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples; a registry asks for names first."""
        return _metrics([])

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of every source."""
        return _metrics(list(self._readings()))


def _metrics(readings: list[Reading]) -> list[Metric]:
    return [
        _counter("received", "Events and listed posts.", readings, lambda r: r.received),
        _counter("duplicates", "Posts seen before.", readings, lambda r: r.duplicates),
        _counter("reconnects", "Streams opened again.", readings, lambda r: r.reconnects),
        _counter(
            "not_streamed",
            "Posts that the timeline listed and the stream did not send.",
            readings,
            lambda r: r.not_streamed,
        ),
        _counters("published", "Messages for Kafka.", "op", readings, lambda r: r.published),
        _counters("withheld", "Posts without consent.", "reason", readings, lambda r: r.withheld),
        _counters("dropped", "Posts filtered out.", "rule", readings, lambda r: r.dropped),
        _counters("errors", "Dead letters.", "reason", readings, lambda r: r.errors),
        _gauge("connected", "1 while the stream is open.", readings, lambda r: r.is_connected),
        _gauge(
            "silent",
            "1 while the stream is open but sends no posts.",
            readings,
            lambda r: r.is_silent,
        ),
        _gauge(
            "suspicious",
            "1 while removals wait for a person.",
            readings,
            lambda r: r.is_suspicious,
        ),
        _gauge(
            "refused",
            "1 while the server refuses the token.",
            readings,
            lambda r: r.is_refused,
        ),
        _gauge(
            "seconds_since_heard",
            "Seconds since the stream's last bytes, heartbeats included.",
            readings,
            lambda r: r.seconds_since_last_bytes,
        ),
        _gauge("arrivals_waiting", "Read, not yet handled.", readings, lambda r: r.events_waiting),
        _gauge(
            "messages_in_flight",
            "Handed to Kafka, not yet acknowledged.",
            readings,
            lambda r: r.messages_in_flight,
        ),
        _gauge(
            "lag_seconds", "Age of the oldest event waiting.", readings, lambda r: r.lag_seconds
        ),
        _gauges("gaps", "Gaps of this run.", "status", readings, lambda r: r.gaps),
    ]


def _counter(
    name: str, text: str, readings: list[Reading], value: Callable[[Reading], float]
) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=_LABELS)
    for reading in readings:
        family.add_metric((reading.instance, reading.source), value(reading))
    return family


def _counters(
    name: str,
    text: str,
    label: str,
    readings: list[Reading],
    values: Callable[[Reading], Mapping[str, int]],
) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=(*_LABELS, label))
    for reading in readings:
        for key, count in values(reading).items():
            family.add_metric((reading.instance, reading.source, key), count)
    return family


def _gauge(
    name: str, text: str, readings: list[Reading], value: Callable[[Reading], float | None]
) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=_LABELS)
    for reading in readings:
        found = value(reading)
        if found is not None:
            family.add_metric((reading.instance, reading.source), found)
    return family


def _gauges(
    name: str,
    text: str,
    label: str,
    readings: list[Reading],
    values: Callable[[Reading], Mapping[str, int]],
) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=(*_LABELS, label))
    for reading in readings:
        for key, count in values(reading).items():
            family.add_metric((reading.instance, reading.source, key), count)
    return family
