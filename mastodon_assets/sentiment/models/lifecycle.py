"""Model lifecycle on request: promote, roll back, find the champion.

What belongs here: what the command line and the asset's configuration share. Each checks a model's
folder before its row changes.
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
    """There is no champion yet."""


def promote_version(settings: Settings, version: str, *, force: bool = False) -> Model:
    """Make that model champion.

    Raises:
        UnknownModelError: there is no such model.
        PromotionRefusedError: it is a candidate, and `force` is not set.
        ModelUnreadableError: its folder is missing, incomplete or of another Spark.
        EmbeddingError: it needs another embedding.
        ServiceUnavailableError: PostgreSQL does not answer.
    """
    with transaction(settings.postgres_url) as connection:
        _check(settings, require(connection, version))
        return promote(connection, version, force=force)


def find_champion(settings: Settings) -> Model:
    """Return the champion, after checking its folder.

    Raises:
        NoChampionError: there is none yet.
        ModelUnreadableError: its folder is missing, incomplete or of another Spark.
        EmbeddingError: it needs another embedding.
        ServiceUnavailableError: PostgreSQL does not answer.
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
    """Restore the previous champion.

    Raises:
        PromotionRefusedError: there is no previous champion.
        ModelUnreadableError: its folder is missing, incomplete or of another Spark.
        EmbeddingError: it needs another embedding.
        ServiceUnavailableError: PostgreSQL does not answer.
    """
    with transaction(settings.postgres_url) as connection:
        _check(settings, predecessor(connection))
        return roll_back(connection)


def _check(settings: Settings, model: Model) -> None:
    needed = check_usable(storage_path(settings, model.path), spark_version).embedding
    if needed is not None:
        require_embedding(settings, needed)
