"""Intervals of shares, against published values."""

import pytest

from mastodon_assets.reports.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "total", "interval"),
    [
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (1, 10, (0.0179, 0.4042)),
        (81, 263, (0.2553, 0.3662)),
    ],
)
def test_the_interval_is_wilsons(successes: int, total: int, interval: tuple[float, float]) -> None:
    assert wilson(successes, total) == pytest.approx(interval, abs=5e-5)
