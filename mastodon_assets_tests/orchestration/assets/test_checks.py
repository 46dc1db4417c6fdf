"""The blocking checks, on tables that were damaged."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from mastodon_assets.config.settings import Settings
from mastodon_assets.definitions import build_definitions
from mastodon_assets.orchestration.assets.checks import no_unread_message_is_lost, table_checks
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.stream.windows import rebuild_windows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.tables import TOOT_METRICS_WINDOWED
from mastodon_assets.warehouse.watermarks import bump_toots_version
from mastodon_assets_tests.support.records import upsert
from mastodon_assets_tests.support.report_rows import MONDAY, Post, insert_posts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def _execute(settings: Settings, *statements: str) -> None:
    with transaction(settings.postgres_url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@cache
def _job() -> dg.JobDefinition:
    return build_definitions().get_repository_def().get_implicit_global_asset_job_def()


def _check(name: str) -> dg.AssetCheckEvaluation:
    """Execute a check alone, in whichever step it is."""
    (key,) = {key for checks in table_checks for key in checks.check_keys if key.name == name}
    alone = _job().get_subset(asset_selection=set(), asset_check_selection={key})
    (found,) = alone.execute_in_process(raise_on_error=False).get_asset_check_evaluations()
    return found


def _differences(table: str) -> list[str]:
    result = _check(f"{table}_is_as_registered")
    assert not result.passed
    return str(result.metadata["differences"].value).split("; ")


def test_all_checks_pass_on_the_tables_that_migrations_make(environment: Settings) -> None:
    for name in (key.name for checks in table_checks for key in checks.check_keys):
        assert _check(name).passed, name


def test_a_topic_that_lost_unread_messages_fails_its_check(
    environment: Settings, produce: Callable[..., None]
) -> None:
    produce([upsert("1"), upsert("2")])
    for offset, passed in ((1, True), (3, False)):
        with transaction(environment.postgres_url) as connection:
            connection.execute(
                "INSERT INTO masto.kafka_offsets (topic, partition, topic_id, next_offset)"
                " VALUES (%s, 0, 'id', %s)"
                " ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset",
                (environment.kafka_topic, offset),
            )
        result = no_unread_message_is_lost(settings=SettingsResource())
        assert isinstance(result, dg.AssetCheckResult)
        assert result.passed == passed
        assert result.metadata["partitions"].value == ("none" if passed else "0")


def test_a_column_of_another_type_fails_its_tables_check(environment: Settings) -> None:
    _execute(environment, "ALTER TABLE masto.batch_toots_per_day ALTER toots_count TYPE integer")
    assert _differences("batch_toots_per_day") == [
        "toots_count: integer not null instead of bigint not null"
    ]
    assert _check("batch_toots_by_lang_per_day_is_as_registered").passed


def test_a_column_too_many_and_one_too_few_fail_the_check(environment: Settings) -> None:
    _execute(
        environment,
        "ALTER TABLE masto.batch_toots_per_day ADD extra text",
        "ALTER TABLE masto.batch_toots_by_lang_per_day DROP toots_count",
    )
    assert _differences("batch_toots_per_day") == ["extra: not in the catalog"]
    assert _differences("batch_toots_by_lang_per_day") == ["toots_count: missing"]


def test_a_key_column_that_is_gone_fails_the_check_and_not_the_run(environment: Settings) -> None:
    _execute(environment, "ALTER TABLE masto.batch_toots_per_day DROP day")
    assert "day: missing" in _differences("batch_toots_per_day")


def test_rows_that_share_a_key_fail_the_check(environment: Settings) -> None:
    _execute(
        environment,
        "ALTER TABLE masto.batch_toots_per_day DROP CONSTRAINT batch_toots_per_day_pkey",
        "INSERT INTO masto.batch_toots_per_day VALUES ('2026-11-20', 1), ('2026-11-20', 2)",
    )
    result = _check("batch_toots_per_day_is_as_registered")
    assert not result.passed
    assert result.metadata["duplicate_keys"].value == 1


def test_a_view_with_a_wrong_column_fails_the_check(environment: Settings) -> None:
    _execute(environment, "ALTER VIEW masto.v_sentiment_daily RENAME n_toosts TO n_toots")
    assert _differences("v_sentiment_daily") == [
        "n_toosts: missing",
        "n_toots: not in the catalog",
    ]


def test_windows_that_do_not_add_up_to_the_rows_fail_the_check(environment: Settings) -> None:
    _execute(
        environment,
        "INSERT INTO masto.toot_metrics_windowed"
        " VALUES ('2026-11-20 12:00Z', '2026-11-20 12:01Z', 3, 30, 'en')",
    )
    result = _check("windows_add_up_to_rows")
    assert not result.passed
    assert result.metadata["sum_of_toots_count"].value == 3
    assert result.metadata["rows_of_toots_raw"].value == 0


def test_of_a_long_history_the_days_that_changed_are_compared_and_some_others(
    environment: Settings,
) -> None:
    with transaction(environment.postgres_url) as connection:
        insert_posts(connection, [Post(MONDAY + timedelta(days=n), "positive") for n in range(40)])
        rebuild_windows(connection, TOOT_METRICS_WINDOWED)
        connection.execute(
            "INSERT INTO masto.day_totals"
            " SELECT event_at::date, count(*), 1, 0 FROM masto.toots_raw GROUP BY 1"
        )
    changed = (MONDAY + timedelta(days=19)).isoformat()
    names = ("windows_add_up_to_rows", "labels_of_a_day_are_those_of_its_toots")
    for name in names:
        result = _check(name)
        assert (result.passed, result.metadata["days"].value) == (True, "all")
    with transaction(environment.postgres_url) as connection:
        version = bump_toots_version(connection)
        connection.execute(
            "UPDATE masto.day_totals SET toots_version = %s WHERE day = %s", (version, changed)
        )
    with transaction(environment.postgres_url) as connection:
        connection.execute(
            "UPDATE masto.toot_metrics_windowed SET toots_count = 2 WHERE window_start::date = %s",
            (changed,),
        )
        connection.execute(
            "UPDATE masto.sentiment_totals SET outcome = 'neutral' WHERE day = %s", (changed,)
        )
    for name, table in zip(names, ("toot_metrics_windowed", "sentiment_totals"), strict=True):
        result = _check(name)
        assert not result.passed
        assert result.metadata["days_that_differ"].value == changed
        assert result.metadata["what_to_do"].value == f"run: mastodon-assets rebuild {table}"


def test_what_a_damaged_table_feeds_is_not_made(
    spark: "SparkSession", environment: Settings, produce: Callable[..., None]
) -> None:
    produce([upsert("1")])
    _execute(environment, "ALTER TABLE masto.batch_toots_per_day ADD extra text")
    refresh = build_definitions().get_repository_def().get_job("refresh_job")
    with dg.DagsterInstance.ephemeral() as instance:
        result = refresh.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    made = {
        event.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert "part5_toots_per_day" not in made
    # One damaged table holds up no more than what it feeds.
    assert {"part5_top_hashtags", "part5_sentiment_distribution", "viz_sentiment_dist"} <= made
