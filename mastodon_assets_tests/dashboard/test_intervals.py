"""Wilson intervals against published values."""

import pytest

from mastodon_assets.dashboard.intervals import share


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Newcombe 1998, table I, method 3 (score).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_literature(
    count: int, total: int, low: float, high: float
) -> None:
    found = share(count, total)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.value == count / total


def test_shares_of_fewer_than_five_are_withheld() -> None:
    assert share(4, 4) is None
    whole = share(5, 5)
    assert whole is not None
    assert (whole.value, whole.high) == (1, 1)
