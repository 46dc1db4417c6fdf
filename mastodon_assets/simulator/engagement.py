"""How posts are received as they age: what a status says of it when it is asked for again.

What belongs here: numbers that grow. Everything is pure: the same post at the same age has the
same numbers.
"""

import random
from datetime import datetime

from mastodon_assets.simulator.statuses import Status

# Most of what a post ever gets, it has after some hours.
_HALF_HOURS = 3
# Alpha of Pareto's distribution: many posts get next to nothing, a few very much.
_ALPHAS = {"favourites_count": 1.1, "reblogs_count": 1.4, "replies_count": 1.6}
_MOST = 5_000


def received(status: Status, now: datetime) -> Status:
    """`status` with the favourites, boosts and replies that it has at `now`; never fewer later."""
    age_hours = (now - datetime.fromisoformat(status["created_at"])).total_seconds() / 3600
    share = 1 - 0.5 ** (max(0, age_hours) / _HALF_HOURS)
    rng = random.Random(f"reception {status['id']}")  # noqa: S311
    grown = {
        name: status[name] + int(share * min(rng.paretovariate(alpha) - 1, _MOST))
        for name, alpha in _ALPHAS.items()
    }
    return status | grown
