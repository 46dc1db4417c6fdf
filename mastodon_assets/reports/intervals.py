"""Intervals of shares."""

from math import sqrt

# Of the normal distribution, for 95 %.
_Z = 1.959964


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share, which is between 0 and 1.

    Args:
        successes: Number of posts that have the property.
        total: Number of all posts, at least 1.
    """
    share = successes / total
    centre = share + _Z**2 / (2 * total)
    margin = _Z * sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    scale = 1 + _Z**2 / total
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)
