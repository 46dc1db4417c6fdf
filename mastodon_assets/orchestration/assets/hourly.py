"""The hourly tables, their views, and the checks of both."""

from collections.abc import Iterator, Sequence

import dagster as dg

from mastodon_assets.orchestration.assets.checks import schema_checks
from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.retries import retried_after_outages
from mastodon_assets.warehouse.tables import (
    ANSWERS,
    HOURLY,
    HOURLY_ACTIVITY,
    HOURLY_DELETES,
    HOURLY_HASHTAG_ACCOUNTS,
    HOURLY_HASHTAGS,
    HOURLY_SENTIMENT,
    V_ACTIVITY_BY_WEEKDAY,
    V_HASHTAG_TRENDS,
    V_LATENESS,
    V_SENTIMENT_BY_HASHTAG,
    V_SENTIMENT_BY_LANGUAGE,
    V_SERVERS,
    Table,
)

_GROUP = "answers"
_TABLE_SOURCES = {
    HOURLY_ACTIVITY: ("toots_raw",),
    HOURLY_SENTIMENT: ("toots_raw", "toots_sentiment"),
    HOURLY_HASHTAGS: ("toots_raw", "toots_sentiment"),
    HOURLY_HASHTAG_ACCOUNTS: ("toots_raw",),
    HOURLY_DELETES: ("toots_raw",),
}
_VIEW_SOURCES = {
    V_HASHTAG_TRENDS: (HOURLY_ACTIVITY.name, HOURLY_HASHTAG_ACCOUNTS.name),
    V_ACTIVITY_BY_WEEKDAY: (HOURLY_ACTIVITY.name,),
    V_SENTIMENT_BY_LANGUAGE: (HOURLY_SENTIMENT.name,),
    V_SENTIMENT_BY_HASHTAG: (HOURLY_HASHTAGS.name,),
    V_SERVERS: (HOURLY_ACTIVITY.name, HOURLY_DELETES.name),
    V_LATENESS: (HOURLY_ACTIVITY.name,),
}
# Counting its rows sums up all hours of all hashtags.
_NOT_COUNTED = (V_SENTIMENT_BY_HASHTAG,)


def _named(sources: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in sources)


def _table_spec(table: Table) -> dg.AssetSpec:
    sources = _TABLE_SOURCES[table]
    return dg.AssetSpec(
        table.name,
        deps=sources,
        group_name=_GROUP,
        kinds={"postgres"},
        description=describe(
            table,
            source="`toots_deleted` and `toot_aliases`, which the stream writes with `toots_raw`"
            if table == HOURLY_DELETES
            else _named(sources),
            reads="the hours in `changed_hours`, which each transaction marks that changes posts,"
            " scores or deletes. All tables of the group are refreshed together.",
            writes="the rows of these hours that differ, in short transactions. Hours before the"
            " horizon of retention stay as they are.",
            metadata="`hours`, computed in this run; `rows_changed`.",
            raises="`ServiceUnavailableError`, `MissingTablesError`.",
        ),
        metadata=table_metadata(table),
    )


def _view_spec(table: Table) -> dg.AssetSpec:
    sources = _VIEW_SOURCES[table]
    counts = table not in _NOT_COUNTED
    return dg.AssetSpec(
        table.name,
        deps=sources,
        group_name=_GROUP,
        kinds={"postgres", "view"},
        description=describe(
            table,
            source=_named(sources),
            reads="only the number of rows; PostgreSQL reads the tables when the view is queried."
            if counts
            else "nothing; PostgreSQL reads the tables when the view is queried.",
            writes="nothing: the migrations create and replace the view.",
            metadata="row count." if counts else "none.",
            raises="`ServiceUnavailableError`, `MissingTablesError`.",
        ),
        metadata=table_metadata(table),
    )


@dg.multi_asset(specs=[_table_spec(table) for table in HOURLY], can_subset=True)
@retried_after_outages
def hourly_tables(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> Iterator[dg.MaterializeResult]:
    """Compute the hours that changed."""
    from mastodon_assets.batch.hourly import refresh_hourly_tables

    refreshed = refresh_hourly_tables(settings.load().postgres_url, context.log.info)
    for table in _selected(context, HOURLY):
        yield dg.MaterializeResult(
            asset_key=table.name,
            metadata={
                "hours": refreshed.hours,
                "rows_changed": refreshed.rows_changed[table.name],
            },
        )


@dg.multi_asset(specs=[_view_spec(table) for table in ANSWERS], can_subset=True)
@retried_after_outages
def answer_views(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> Iterator[dg.MaterializeResult]:
    """Count the rows of the views."""
    url = settings.load().postgres_url
    for table in _selected(context, ANSWERS):
        yield dg.MaterializeResult(
            asset_key=table.name,
            metadata={} if table in _NOT_COUNTED else row_count(url, table),
        )


def _selected(context: dg.AssetExecutionContext, tables: Sequence[Table]) -> list[Table]:
    names = {key.to_user_string() for key in context.selected_asset_keys}
    return [table for table in tables if table.name in names]


@dg.asset_check(
    asset=HOURLY_ACTIVITY.name,
    additional_deps=[table.name for table in HOURLY if table != HOURLY_ACTIVITY],
    blocking=True,
)
@retried_after_outages
def hourly_tables_count_their_posts(settings: SettingsResource) -> dg.AssetCheckResult:
    """The hourly tables' rows of an hour are those computed from posts, scores and deletes.

    It compares some hours per run, as many as have 20,000 posts, one after the other through the
    whole history. Hours that wait for a refresh are left out.
    """
    from mastodon_assets.batch.hourly import compare_next_hours

    hours, differing = compare_next_hours(settings.load().postgres_url)
    advice = {"what_to_do": f"run: mastodon-assets rebuild {' '.join(differing)}"}
    return dg.AssetCheckResult(
        passed=not differing,
        metadata={
            "hours": ", ".join(f"{hour:%Y-%m-%d %H:00}" for hour in hours) or "none",
            "tables_that_differ": ", ".join(differing) or "none",
            **(advice if differing else {}),
        },
    )


hourly_checks = [
    schema_checks("hourly_tables_are_as_registered", HOURLY),
    schema_checks("answer_views_are_as_registered", ANSWERS),
    hourly_tables_count_their_posts,
]
