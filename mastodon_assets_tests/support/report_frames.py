"""Frames as the charts get them from the queries."""

from collections.abc import Sequence
from datetime import timedelta

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
