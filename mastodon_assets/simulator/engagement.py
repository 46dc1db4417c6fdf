"""Engagement: the favourites, boosts and replies that a post gains as it ages.

What belongs here: the counts of a status that is requested again. Pure: the same post at the same
age has the same counts.
"""

import random
from datetime import datetime

from mastodon_assets.simulator.statuses import Status

# Hours after which a post has half of its final counts.
_HALF_HOURS = 3
# Alpha of the Pareto distribution: many posts get almost nothing, a few very much.
_ALPHAS = {"favourites_count": 1.1, "reblogs_count": 1.4, "replies_count": 1.6}
_MAX_COUNT = 5_000


def with_engagement(status: Status, now: datetime) -> Status:
    """Return `status` with its favourites, boosts and replies at `now`; they never shrink."""
    age_hours = (now - datetime.fromisoformat(status["created_at"])).total_seconds() / 3600
    share = 1 - 0.5 ** (max(0, age_hours) / _HALF_HOURS)
    rng = random.Random(f"reception {status['id']}")  # noqa: S311
    grown = {
        name: status[name] + int(share * min(rng.paretovariate(alpha) - 1, _MAX_COUNT))
        for name, alpha in _ALPHAS.items()
    }
    return status | grown
