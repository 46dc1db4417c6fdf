"""Frames as the charts get them from the queries."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

import pandas as pd

from mastodon_assets_tests.support.report_rows import MONDAY

REAL_MODEL: list[str | None] = ["0123456789abcdef", "tweets.csv.gz sha256:0123456789ab"]


def by_day(
    days: int, posts: int = 100, models: Sequence[list[str | None]] = (REAL_MODEL,)
) -> pd.DataFrame:
    """Every second day has half of the posts."""
    counts = [posts if day % 2 == 0 else posts // 2 for day in range(days)]
    frame = pd.DataFrame(
        {
            "day": [MONDAY - timedelta(days=days - 1 - day) for day in range(days)],
            "n_pos": [count // 2 for count in counts],
            "n_neu": [count // 10 for count in counts],
            "n_neg": [count // 10 for count in counts],
        }
    )
    frame["n_unscored"] = pd.Series(counts, dtype="int64") - frame.iloc[:, 1:].sum(axis=1)
    frame["n_toosts"] = counts
    frame["models"] = pd.Series([models] * days, dtype="object")
    return frame.assign(n_earlier=0, n_later=0)


def per_day(days: int, posts: int = 100) -> pd.DataFrame:
    shown = by_day(days, posts)[["day", "n_toosts", "n_earlier", "n_later"]]
    return shown.rename(columns={"n_toosts": "toots_count"})


def trends(names: Sequence[str], accounts: int, days_compared: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "hashtag": names,
            "accounts": [accounts] * len(names),
            "usual_accounts": [accounts / 3 if days_compared else None] * len(names),
        }
    ).assign(
        hour=datetime.combine(MONDAY, time(23), UTC),
        days_compared=days_compared,
        all_trends=accounts,
    )


def week(posts: int, hours: int = 168) -> pd.DataFrame:
    """The first hours of the week, with more posts in each."""
    return pd.DataFrame(
        {
            "weekday": [1 + hour // 24 for hour in range(hours)],
            "hour_of_day": [hour % 24 for hour in range(hours)],
            "toots_count": [posts * hour for hour in range(hours)],
            "mean_toots": [posts * hour / 3 for hour in range(hours)],
        }
    ).assign(hours_count=3, first_day=MONDAY, last_day=MONDAY + timedelta(days=20))


def sentiment_of(
    names: Sequence[str], posts: int, models: Sequence[list[str | None]] = (REAL_MODEL,)
) -> pd.DataFrame:
    labelled = [1 + posts // (1 + rank) for rank in range(len(names))]
    return pd.DataFrame(
        {
            "name": names,
            "n_pos": [0 if rank % 3 == 0 else count // 2 for rank, count in enumerate(labelled)],
            "n_neg": [count // 3 for count in labelled],
            "n_labelled": labelled,
            "models": pd.Series([models] * len(names), dtype="object"),
        }
    ).assign(
        all_labelled=sum(labelled),
        n_toots=2 * sum(labelled),
        all_names=1234,
        first_day=MONDAY,
        last_day=MONDAY + timedelta(days=29),
    )


def by_server(names: Sequence[str], posts: int) -> pd.DataFrame:
    """Both frames of servers in one: deletes and lateness."""
    return pd.DataFrame({"instance": names}).assign(
        toots_count=posts,
        deletes_count=posts,
        deletes_of_stored=posts // 3,
        received_1m=posts - 4 * (posts // 5),
        received_10m=posts // 5,
        received_1h=posts // 5,
        received_1d=posts // 5,
        received_later=posts // 5,
        all_toots=posts * len(names),
        all_servers=1234,
        first_day=MONDAY,
        last_day=MONDAY + timedelta(days=29),
    )
