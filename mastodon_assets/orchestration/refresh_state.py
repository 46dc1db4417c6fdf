"""The progress of the tables, and the version that batch tables, scores and charts show."""

from dataclasses import dataclass

from mastodon_assets.config.settings import Settings
from mastodon_assets.stream.ledger import read_ledger
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction
from mastodon_assets.warehouse.horizons import Horizons, read_horizons
from mastodon_assets.warehouse.tables import BATCH, HOURLY, HOURLY_HASHTAGS, HOURLY_SENTIMENT
from mastodon_assets.warehouse.watermarks import toots_version

# Every asset of refresh_job that records its progress. One that never ran shows version 0, which is
# also the version of tables that never had a row.
DERIVED_ASSETS = (
    *(table.name for table in (*BATCH, *HOURLY)),
    "toots_sentiment",
    "part5_sentiment_distribution",
    "part5_sentiment_by_day_stacked",
    "part5_toots_per_day",
    "part5_top_hashtags",
    "hashtag_trends",
    "activity_by_weekday",
    "sentiment_by_language",
    "sentiment_by_hashtag",
    "servers",
    "lateness",
    "viz_sentiment_dist",
    "viz_sentiment_daily",
    "viz_top_hashtags",
)
# Assets that show labels, and therefore record the model as well.
LABELLED_ASSETS = (
    "toots_sentiment",
    HOURLY_SENTIMENT.name,
    HOURLY_HASHTAGS.name,
    "part5_sentiment_distribution",
    "part5_sentiment_by_day_stacked",
    "sentiment_by_language",
    "sentiment_by_hashtag",
    "viz_sentiment_dist",
    "viz_sentiment_daily",
)


@dataclass(frozen=True)
class ShownState:
    """The tables' progress and what is shown of them.

    Attributes:
        ledger: Next offset to read by partition.
        toots_version: Version of `toots_raw`.
        shown_version: Oldest version that a derived asset shows.
        champion: Version of the model that scores, if there is one.
        shown_champions: Models whose labels are shown; contains None if an asset shows none.
        horizons: The first days that are kept.
    """

    ledger: dict[int, int]
    toots_version: int
    shown_version: int
    champion: str | None
    shown_champions: frozenset[str | None]
    horizons: Horizons


def shown_state(settings: Settings) -> ShownState:
    """Read the state in one snapshot.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The database has no tables yet.
    """
    with transaction(
        settings.postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
    ) as connection:
        progress = connection.execute(
            "SELECT asset, toots_version, model_version FROM masto.asset_progress"
        ).fetchall()
        champion = connection.execute(
            "SELECT version FROM masto.sentiment_models WHERE status = 'champion'"
        ).fetchone()
        versions = {asset: version for asset, version, _ in progress}
        models = {asset: model for asset, _, model in progress}
        return ShownState(
            ledger=read_ledger(connection, settings.kafka_topic),
            toots_version=toots_version(connection),
            shown_version=min(versions.get(asset, 0) for asset in DERIVED_ASSETS),
            champion=champion[0] if champion else None,
            shown_champions=frozenset(models.get(asset) for asset in LABELLED_ASSETS),
            horizons=read_horizons(connection),
        )
