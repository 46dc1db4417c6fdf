"""Promoting and rolling back by a person's word: the folder is looked at before the row changes.

What belongs here: what the command line and the asset's configuration share. No Spark session.
"""

from pyspark import __version__ as spark_version

from mastodon_assets.sentiment.registry import Model, predecessor, promote, require, roll_back
from mastodon_assets.sentiment.store import check_usable
from mastodon_assets.settings import Settings
from mastodon_assets.warehouse.database import transaction


def promote_version(settings: Settings, version: str, *, force: bool = False) -> Model:
    """Make that model champion.

    Raises: UnknownModelError, PromotionRefusedError, ModelUnreadableError, ServiceUnavailableError.
    """
    with transaction(settings.postgres_url) as connection:
        check_usable(require(connection, version).folder, spark_version)
        return promote(connection, version, force=force)


def roll_back_champion(settings: Settings) -> Model:
    """Make the champion before this one champion again.

    Raises: PromotionRefusedError, ModelUnreadableError, ServiceUnavailableError.
    """
    with transaction(settings.postgres_url) as connection:
        check_usable(predecessor(connection).folder, spark_version)
        return roll_back(connection)
