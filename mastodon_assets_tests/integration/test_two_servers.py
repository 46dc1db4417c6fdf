"""Two servers that know some posts in common, read by one process into the tables."""

from typing import TYPE_CHECKING

from mastodon_assets.config.settings import Settings
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.source_states import read_sources
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.simulator.server import SimulatorServer, running, synthetic_source
from mastodon_assets.stream.drain import drain
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.federated import measure_federation

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ONE, TWO = "one.example", "two.example"


def catch_up(settings: Settings, *servers: SimulatorServer) -> IngestSummary:
    addresses = [server.base_url.removeprefix("http://") for server in servers]
    tokens = ",".join(
        f"{address}={server.token}" for address, server in zip(addresses, servers, strict=True)
    )
    read = Settings.model_validate(
        settings.model_dump()
        | {
            "mastodon_api_base_url": ",".join(server.base_url for server in servers),
            "mastodon_access_token": tokens,
        }
    )
    return ingest(read, max_events=None, until_caught_up=True, should_stop=lambda: False)


def test_a_post_that_two_servers_list_is_one_row_and_a_second_start_publishes_nothing_again(
    settings: Settings, spark: "SparkSession"
) -> None:
    one = synthetic_source(toots=300, days=2, seed=5, domain=ONE)
    two = synthetic_source(toots=300, days=2, seed=5, domain=TWO)
    with running(one, domain=ONE) as first, running(two, domain=TWO) as second:
        summary = catch_up(settings, first, second)
        drain(lambda: spark, settings, report=print)
        again = catch_up(settings, first, second)

    assert summary.instance in (f"{ONE}, {TWO}", f"{TWO}, {ONE}")
    with transaction(settings.postgres_url) as connection:
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT uri) FROM masto.toots_raw"
        ).fetchone()
        both = connection.execute(
            "SELECT count(*) FROM (SELECT id FROM masto.toot_aliases"
            " GROUP BY id HAVING count(DISTINCT instance) = 2) told_twice"
        ).fetchone()
        cursors = connection.execute(
            "SELECT instance, source FROM masto.ingest_cursors ORDER BY 1"
        ).fetchall()
    assert rows is not None
    assert both is not None
    assert rows[0] == rows[1] > 0
    # Remote posts are the same, local ones are not.
    assert 0 < both[0] < rows[0]
    assert cursors == [(ONE, "public"), (TWO, "public")]
    assert [(s.instance, s.state, s.open_gaps) for s in read_sources(settings.postgres_url)] == [
        (ONE, "stopped", 0),
        (TWO, "stopped", 0),
    ]
    assert (again.upserts, again.deletes) == (0, 0)
    assert again.duplicates > 0


def test_a_block_abroad_removes_nothing_that_home_still_lists(settings: Settings) -> None:
    """As two GoToSocials were seen: 249 deletes at once, and 71 posts of one person gone for good.

    Posts that home deletes after the block go, though the other server never hears of it.
    """
    found = measure_federation(settings, posts=60, rate=10)
    assert found.deleted_abroad > 20
    assert found.published > 100
    assert (found.missing, found.kept_wrongly) == (0, 0)
