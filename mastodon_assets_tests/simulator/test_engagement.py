"""Favourites, boosts and replies of the simulator's posts as they age."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from mastodon_assets.simulator.engagement import with_engagement
from mastodon_assets.simulator.synthetic import history

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
POSTS = [
    event.status
    for event in history(toots=300, days=1, seed=4, now=NOW)
    if event.kind == "update" and event.status is not None
]
COUNTS = ("favourites_count", "reblogs_count", "replies_count")


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_grow_with_age_and_never_shrink(name: str) -> None:
    ages = [timedelta(hours=hours) for hours in (-1, 0, 1, 24, 24 * 30)]
    totals = []
    for age in ages:
        counts = [
            with_engagement(post, datetime.fromisoformat(post["created_at"]) + age)[name]
            for post in POSTS
        ]
        totals.append(counts)
    assert totals[0] == totals[1] == [post[name] for post in POSTS]
    for earlier, later in pairwise(totals):
        assert all(a <= b for a, b in zip(earlier, later, strict=True))
    assert sum(totals[1]) < sum(totals[2]) < sum(totals[3])


def test_the_same_post_at_the_same_age_has_the_same_numbers() -> None:
    assert [with_engagement(post, NOW) for post in POSTS] == [
        with_engagement(post, NOW) for post in POSTS
    ]
