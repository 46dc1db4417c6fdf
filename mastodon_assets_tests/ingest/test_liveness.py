"""A stream without posts: when that is odd, and when a quiet server is just quiet."""

from datetime import UTC, datetime, timedelta

import pytest

from mastodon_assets.ingest.liveness import LivenessMonitor, is_anomalous

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("silence", "longest_pause", "deletes", "odd"),
    [
        (9.9, 0.1, 0, False),
        (10, 0.1, 0, True),
        (10, 3, 0, False),
        (15, 3, 0, True),
        (600, None, 0, False),
        (9.9, None, 100, False),
        (10, None, 19, False),
        (10, None, 20, True),
        (25, 30, 20, False),
        (30, 30, 20, True),
        (149, 30, 0, False),
        (150, 30, 0, True),
    ],
)
def test_silence_is_an_anomaly_after_several_usual_pauses_and_ten_minutes(
    silence: float, longest_pause: float | None, deletes: int, odd: bool
) -> None:
    pause = None if longest_pause is None else timedelta(minutes=longest_pause)
    assert is_anomalous(timedelta(minutes=silence), pause, deletes) is odd


def busy() -> LivenessMonitor:
    watch = LivenessMonitor()
    watch.connected(at(-1))
    for second in range(30):
        watch.note_post(at(second / 60))
    return watch


def test_a_busy_feed_that_goes_silent_is_an_anomaly_until_posts_arrive() -> None:
    watch = busy()
    assert watch.anomaly(at(5)) is None
    assert watch.anomaly(at(11)) == (
        "heartbeats but no posts since 2026-11-20 12:00Z, though the stream is open;"
        " see: mastodon-assets doctor"
    )
    watch.note_other(at(11), is_delete=True)
    assert str(watch.anomaly(at(11))).startswith("deletes but no posts since")
    watch.note_post(at(12))
    assert watch.anomaly(at(12)) is None


def test_a_feed_of_nothing_but_deletes_is_an_anomaly() -> None:
    watch = LivenessMonitor()
    watch.connected(NOON)
    for minute in range(20):
        watch.note_other(at(minute), is_delete=True)
    assert watch.anomaly(at(9)) is None
    assert watch.anomaly(at(20)) is not None


def test_a_feed_that_never_sent_a_post_is_just_quiet() -> None:
    watch = LivenessMonitor()
    watch.connected(NOON)
    assert watch.anomaly(at(60 * 24)) is None


def test_the_time_without_a_stream_is_no_silence_of_the_server() -> None:
    watch = busy()
    watch.disconnected()
    assert watch.anomaly(at(60)) is None
    watch.connected(at(60))
    assert watch.anomaly(at(69)) is None
    watch.note_post(at(69))
    assert watch.longest_pause == timedelta(seconds=1)


def test_pauses_of_an_earlier_run_still_count() -> None:
    watch = LivenessMonitor(last_post_at=at(-600), longest_pause=timedelta(minutes=4))
    watch.connected(NOON)
    assert watch.anomaly(at(19)) is None
    assert watch.anomaly(at(20)) is not None
