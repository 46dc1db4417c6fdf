"""How the toots were received, read again from their server."""

import dagster as dg

from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource
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
            description="Every server answered, and no reading has waited for more than two hours"
            " since it was due. A server that is down fails no refresh: it is a warning here.",
        )
    ],
    description=describe(
        TOOTS_ENGAGEMENT,
        source="`toots_raw`, and the servers of `MASTODON_API_BASE_URL` by"
        " `GET /api/v1/statuses?id[]=` (Mastodon 4.3)",
        reads="posts of these servers whose reading is due, one hour (until a day) and one day"
        " (until a week) after `event_at`; those that fell due last first, at most 600 from a"
        " server at a time. Without a server it reads nothing.",
        writes="each reading once; one of a post that the server does not show has no numbers. A"
        " reading goes with its post.",
        metadata="`read`, `unseen`, `overdue`; by server, with what went wrong; row count.",
        raises="`ServiceUnavailableError`, `MissingTablesError`, of PostgreSQL alone.",
    ),
    metadata=table_metadata(TOOTS_ENGAGEMENT),
)
def toots_engagement(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> dg.MaterializeResult:
    from mastodon_assets.ingest.engagement import read_engagement

    loaded = settings.load()
    servers = read_engagement(loaded)
    problems = {each.server: each.problem for each in servers if each.problem}
    for server, problem in problems.items():
        context.log.warning(f"{server}: {problem}")
    overdue = sum(each.overdue for each in servers)
    return dg.MaterializeResult(
        metadata={
            "read": sum(each.read for each in servers),
            "unseen": sum(each.unseen for each in servers),
            "overdue": overdue,
            "servers": dg.MetadataValue.json({each.server: vars(each) for each in servers})
            if servers
            else "none is named: set MASTODON_API_BASE_URL",
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
