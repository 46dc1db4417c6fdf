"""Favourites, boosts and replies of the posts, read again from their servers."""

import dagster as dg

from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.retries import retried_after_outages
from mastodon_assets.warehouse.tables import TOOTS_ENGAGEMENT

_CURRENT = "toots_engagement_readings_are_current"


@dg.asset(
    group_name="engagement",
    kinds={"mastodon", "postgres"},
    deps=["toots_raw"],
    check_specs=[
        dg.AssetCheckSpec(
            _CURRENT,
            asset="toots_engagement",
            description="Every server answered, and no reading is overdue by more than two hours."
            " A server that is down is a warning here and does not fail the refresh.",
        )
    ],
    description=describe(
        TOOTS_ENGAGEMENT,
        source="`toots_raw`, and the servers of `MASTODON_API_BASE_URL` by"
        " `GET /api/v1/statuses?id[]=` (Mastodon 4.3)",
        reads="the posts of these servers that have a reading due: one hour after `event_at` (for a"
        " day) and one day after it (for a week). The latest due come first, at most 600 per server"
        " and run. Without a configured server it reads nothing.",
        writes="each reading once. A post that the server does not show gets a reading without"
        " numbers. Readings are deleted with their post. Posts that are gone at their own server,"
        " that are not public any more, or whose account now refuses are deleted: their deletes"
        " go to Kafka.",
        metadata="`read`, `unseen`, `removed`, `overdue`; the same by server, with its problem; row"
        " count.",
        raises="`ServiceUnavailableError`, `MissingTablesError`, for PostgreSQL only.",
    ),
    metadata=table_metadata(TOOTS_ENGAGEMENT),
)
@retried_after_outages
def toots_engagement(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> dg.MaterializeResult:
    """Make the readings that are due."""
    from mastodon_assets.ingest.engagement import read_engagement

    loaded = settings.load()
    servers = read_engagement(loaded)
    problems = {each.server: each.problem for each in servers if each.problem}
    for server, problem in problems.items():
        context.log.warning("%s: %s", server, problem)
    overdue = sum(each.overdue for each in servers)
    return dg.MaterializeResult(
        metadata={
            "read": sum(each.read for each in servers),
            "unseen": sum(each.unseen for each in servers),
            "removed": sum(each.removed for each in servers),
            "overdue": overdue,
            "servers": dg.MetadataValue.json({each.server: vars(each) for each in servers})
            if servers
            else "none configured; set MASTODON_API_BASE_URL",
            **row_count(loaded.postgres_url, TOOTS_ENGAGEMENT),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=_CURRENT,
                passed=not problems and not overdue,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"overdue": overdue, "problems": dg.MetadataValue.json(problems)},
            )
        ],
    )
