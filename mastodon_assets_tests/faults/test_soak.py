"""The soak of the benchmarks, in seconds instead of minutes: the limits are scaled with them."""

import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets.simulator.chaos import CONNECTION_KINDS, KINDS, Ids, Kind
from mastodon_assets.simulator.limits import Limit
from mastodon_assets_tests.benchmarks.soak import Plan, soak

# Behind the cursor no more than a page is read where ids do not tell the time.
_OPAQUE: list[Kind] = ["cut in mid-event", "clean end", "burst out of order", "restart"]


@pytest.mark.parametrize(
    ("ids", "kinds"), [("snowflake", KINDS), ("ulid", _OPAQUE), ("flake", _OPAQUE)]
)
def test_whatever_goes_wrong_every_post_and_delete_is_in_kafka(
    settings: Settings, ids: Ids, kinds: list[Kind]
) -> None:
    plan = Plan(
        seconds=(len(kinds) + 1) * 1.5,
        rate=10,
        fault_seconds=1.5,
        longest_walk_seconds=60,
        settle_seconds=90,
        every=Limit(300, 10),
        paged=Limit(300, 10),
        commit_seconds=0.5,
        kinds=kinds,
        ids=ids,
    )
    reported: list[str] = []
    result = soak(settings, plan, report=reported.append)

    assert set(result.faults) >= set(kinds)
    assert result.posts > 50
    assert result.deletes > 0
    assert (result.missing, result.undeleted, set(result.gaps)) == ([], [], {"recovered"}), reported
    assert result.holds


def test_what_the_limits_cannot_cover_is_in_gaps_with_its_exact_range(
    settings: Settings,
) -> None:
    plan = Plan(
        seconds=9,
        rate=200,
        fault_seconds=3,
        longest_walk_seconds=4,
        settle_seconds=90,
        every=Limit(300, 10),
        # One page in all, which no gap is short enough for, on whatever machine.
        paged=Limit(1, 3600),
        commit_seconds=0.5,
        kinds=CONNECTION_KINDS,
    )
    reported: list[str] = []
    result = soak(settings, plan, report=reported.append)

    assert result.missing, "the limits covered all: this shows nothing"
    assert result.missing == result.recorded, reported
    assert result.overstated == [], reported
    # Deletes are asked for by requests of another limit.
    assert result.undeleted == [], reported
    assert result.holds
