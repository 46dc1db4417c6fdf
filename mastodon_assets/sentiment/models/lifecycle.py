"""The champion by a person's word: promoted, rolled back, or asked to score by hand.

What belongs here: what the command line and the asset's configuration share. A model's folder is
looked at before its row changes.
"""

from pyspark import __version__ as spark_version

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.features.embedding import require_embedding
from mastodon_assets.sentiment.models.registry import (
    Model,
    champion,
    predecessor,
    promote,
    require,
    roll_back,
)
from mastodon_assets.sentiment.models.store import check_usable
from mastodon_assets.spark.storage import storage_path
from mastodon_assets.warehouse.database import transaction


class NoChampionError(PlatformError):
    """No model scores yet."""


def promote_version(settings: Settings, version: str, *, force: bool = False) -> Model:
    """Make that model champion.

    Raises: UnknownModelError, PromotionRefusedError, ModelUnreadableError, EmbeddingError,
    ServiceUnavailableError.
    """
    with transaction(settings.postgres_url) as connection:
        _check(settings, require(connection, version))
        return promote(connection, version, force=force)


def find_champion(settings: Settings) -> Model:
    """The model that scores, its folder looked at.

    Raises: NoChampionError, ModelUnreadableError, EmbeddingError, ServiceUnavailableError.
    """
    with transaction(settings.postgres_url, snapshot=True) as connection:
        current = champion(connection)
    if current is None:
        raise NoChampionError(
            "there is no sentiment model yet; to train one, materialize sentiment_pipeline_model"
            " (mastodon-assets ui)"
        )
    _check(settings, current)
    return current


def roll_back_champion(settings: Settings) -> Model:
    """Make the champion before this one champion again.

    Raises: PromotionRefusedError, ModelUnreadableError, EmbeddingError, ServiceUnavailableError.
    """
    with transaction(settings.postgres_url) as connection:
        _check(settings, predecessor(connection))
        return roll_back(connection)


def _check(settings: Settings, model: Model) -> None:
    needed = check_usable(storage_path(settings, model.path), spark_version).embedding
    if needed is not None:
        require_embedding(settings, needed)
