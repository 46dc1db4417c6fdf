"""The blocking checks: tables are as registered, and sums agree with the rows they count."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.retries import retried_after_outages
from mastodon_assets.warehouse.tables import (
    ANSWERS,
    BATCH,
    TOOT_METRICS_WINDOWED,
    TOOTS_ENGAGEMENT,
    TOOTS_RAW,
    TOOTS_SENTIMENT,
    USER_AVG_LENGTH_WINDOWED,
    V_SENTIMENT_DAILY,
    Table,
)

# Tables that are not assets (ledger, tombstones, …) have no check here.
_CHECKED = (
    TOOTS_RAW,
    TOOT_METRICS_WINDOWED,
    USER_AVG_LENGTH_WINDOWED,
    *BATCH,
    TOOTS_SENTIMENT,
    TOOTS_ENGAGEMENT,
    V_SENTIMENT_DAILY,
)


def schema_checks(name: str, tables: Sequence[Table]) -> dg.AssetChecksDefinition:
    """Return the checks of the tables, as one step.

    A damaged table holds up what any of them feeds.
    """

    @dg.multi_asset_check(
        name=name, specs=[_schema_spec(table) for table in tables], can_subset=True
    )
    @retried_after_outages
    def are_as_registered(
        context: dg.AssetCheckExecutionContext, settings: SettingsResource
    ) -> Iterator[dg.AssetCheckResult]:
        from mastodon_assets.warehouse.database import transaction

        selected = {key.asset_key.to_user_string() for key in context.selected_asset_check_keys}
        with transaction(settings.load().postgres_url, snapshot=True) as connection:
            results = [
                _schema_result(connection, table) for table in tables if table.name in selected
            ]
        yield from results

    return are_as_registered


def _schema_result(connection: Connection[Any], table: Table) -> dg.AssetCheckResult:
    from mastodon_assets.warehouse.checks import duplicate_keys, schema_differences

    differences = schema_differences(connection, table)
    # Keys can be counted only if all their columns exist. A view of the answers groups by its key.
    has_key = not any(f"{column}: missing" in differences for column in table.key)
    is_counted = has_key and table not in ANSWERS
    duplicates = duplicate_keys(connection, table) if is_counted else 0
    return dg.AssetCheckResult(
        asset_key=table.name,
        check_name=f"{table.name}_is_as_registered",
        passed=not differences and not duplicates,
        metadata={
            "differences": "; ".join(differences) or "none",
            "duplicate_keys": duplicates,
        },
    )


def _schema_spec(table: Table) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        f"{table.name}_is_as_registered",
        asset=table.name,
        blocking=True,
        description="Columns and types are those of the table catalog; no two rows share a key.",
    )


@dg.asset_check(asset="mastodon_stream")
@retried_after_outages
def no_unread_message_is_lost(settings: SettingsResource) -> dg.AssetCheckResult:
    """The topic still has every message after the offsets that the tables have read."""
    from mastodon_assets.kafka.topics import read_topic
    from mastodon_assets.stream.ledger import lag, read_ledger
    from mastodon_assets.warehouse.database import transaction

    loaded = settings.load()
    with transaction(loaded.postgres_url, snapshot=True) as connection:
        ledger = read_ledger(connection, loaded.kafka_topic)
    topic = read_topic(loaded, loaded.kafka_topic)
    lost = [
        partition
        for partition, offset in sorted(ledger.items())
        if not topic.earliest.get(partition, 0) <= offset <= topic.end.get(partition, -1)
    ]
    return dg.AssetCheckResult(
        passed=not lost,
        metadata={
            "partitions": ", ".join(map(str, lost)) or "none",
            "lag_messages": lag(ledger, topic.end),
        },
    )


@dg.asset_check(asset="toot_metrics_windowed", additional_deps=["toots_raw"], blocking=True)
@retried_after_outages
def windows_add_up_to_rows(settings: SettingsResource) -> dg.AssetCheckResult:
    """The sum of `toots_count` over a day's windows equals the day's rows of `toots_raw`.

    With a history of more than 31 days it compares the days that changed since it last passed. All
    others follow within a week, a few in each hour. `mastodon-assets rebuild` compares all days.
    """
    from mastodon_assets.warehouse.checks import (
        days_to_compare,
        window_sum_and_rows,
        windows_and_rows,
    )
    from mastodon_assets.warehouse.database import transaction
    from mastodon_assets.warehouse.watermarks import toots_version

    url = settings.load().postgres_url
    with transaction(url, snapshot=True) as connection:
        version = toots_version(connection)
        days = days_to_compare(connection, "windows_add_up_to_rows")
        if days is None:
            counted = [("all", *window_sum_and_rows(connection))]
        else:
            counted = [
                (day.isoformat(), in_windows, rows)
                for day, in_windows, rows in windows_and_rows(connection, days)
            ]
    wrong = [day for day, in_windows, rows in counted if in_windows != rows]
    _record(url, "windows_add_up_to_rows", version, wrong)
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata={
            "sum_of_toots_count": sum(in_windows for _, in_windows, _ in counted),
            "rows_of_toots_raw": sum(rows for _, _, rows in counted),
            "days": ", ".join(day for day, _, _ in counted),
            "days_that_differ": ", ".join(wrong) or "none",
            **_advice("toot_metrics_windowed", wrong),
        },
    )


@dg.asset_check(asset="v_sentiment_daily", additional_deps=["toots_sentiment"], blocking=True)
@retried_after_outages
def labels_of_a_day_are_those_of_its_toots(settings: SettingsResource) -> dg.AssetCheckResult:
    """The view's numbers of a day are those of its rows of `toots_raw` and `toots_sentiment`.

    It compares the same days as `windows_add_up_to_rows`.
    """
    from mastodon_assets.warehouse.checks import days_to_compare
    from mastodon_assets.warehouse.database import transaction
    from mastodon_assets.warehouse.rollups import days_that_differ
    from mastodon_assets.warehouse.watermarks import toots_version

    url = settings.load().postgres_url
    with transaction(url, snapshot=True) as connection:
        version = toots_version(connection)
        days = days_to_compare(connection, "labels_of_a_day_are_those_of_its_toots")
        wrong = [day.isoformat() for day in days_that_differ(connection, days)]
    _record(url, "labels_of_a_day_are_those_of_its_toots", version, wrong)
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata={
            "days": "all" if days is None else ", ".join(day.isoformat() for day in days),
            "days_that_differ": ", ".join(wrong) or "none",
            **_advice("sentiment_totals", wrong),
        },
    )


def _record(url: SecretStr, check: str, version: int, wrong: list[str]) -> None:
    """Record the version at which a check passed; a failed one compares the same days again."""
    from mastodon_assets.warehouse.database import transaction
    from mastodon_assets.warehouse.watermarks import set_watermark

    if not wrong:
        with transaction(url) as connection:
            set_watermark(connection, check, toots_version=version)


def _advice(table: str, wrong: list[str]) -> dict[str, str]:
    return {"what_to_do": f"run: mastodon-assets rebuild {table}"} if wrong else {}


topic_checks = [no_unread_message_is_lost]
table_checks = [
    *(schema_checks(f"{table.name}_is_as_registered", [table]) for table in _CHECKED),
    windows_add_up_to_rows,
    labels_of_a_day_are_those_of_its_toots,
]
