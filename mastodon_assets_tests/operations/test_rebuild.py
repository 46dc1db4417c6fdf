"""Damaged derived tables, rebuilt from toots_raw."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.operations.rebuild import REBUILDS, rebuild
from mastodon_assets.stream.drain import drain
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.tables import DAILY
from mastodon_assets_tests.support.records import delete, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_VIEWS = {"batch_active_users", "batch_top_hashtag", "batch_avg_len_per_day"}
_DAILY = {table.name for table in DAILY}
_SUMS = ("user_totals", "hashtag_totals", "day_totals")


def _tables(postgres_url: SecretStr) -> dict[str, list[Any]]:
    columns = {"toots_sentiment": "id, created_at, lang, text, label_str, reason, model_version"}
    with transaction(postgres_url, snapshot=True) as connection:
        return {
            name: sorted(
                connection.execute(
                    f"SELECT {columns.get(name, '*')} FROM masto.{name}".encode()  # noqa: S608 - constants
                ).fetchall()
            )
            for name in (*REBUILDS, *_SUMS)
        }


def test_whatever_is_gone_or_wrong_is_rebuilt_and_the_right_rows_are_not_written(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    posts = [upsert(str(number), hashtags=["x", f"tag{number % 2}"]) for number in range(7)]
    produce([*posts, delete("gone")])
    drain(lambda: spark, settings, report=print)

    def rebuilt(*names: str) -> dict[str, int]:
        return dict(rebuild(lambda: spark, settings, names, print))

    made = rebuilt(*REBUILDS)
    assert made["toots_sentiment"] == 7
    right = _tables(settings.postgres_url)
    assert all(right.values())
    assert rebuilt(*REBUILDS) == dict.fromkeys(REBUILDS, 0)

    with transaction(settings.postgres_url) as connection:
        # Daily sums follow the hours: they are wrong if these come back.
        for name in (*(set(REBUILDS) - _VIEWS - _DAILY), *_SUMS):
            connection.execute(f"DELETE FROM masto.{name}".encode())  # noqa: S608 - constants
        connection.execute(
            "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, lang, reason, text)"
            " VALUES (1, now(), now(), 'en', 'no_model', 'of no toot')"
        )
        connection.execute("INSERT INTO masto.batch_toots_per_day VALUES ('2020-01-01', 5)")
    assert all(rebuilt(*REBUILDS).values())
    assert _tables(settings.postgres_url) == right

    with transaction(settings.postgres_url) as connection:
        connection.execute("DELETE FROM masto.hourly_hashtags")
    assert rebuilt("hourly_hashtags").keys() == {"hourly_hashtags", "daily_hashtags"}
    assert _tables(settings.postgres_url) == right
