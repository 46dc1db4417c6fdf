"""Posts with labels of a model, and a database in which people label them."""

from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from mastodon_assets.sentiment.annotation.labels import (
    Sample,
    ShownPost,
    read_post,
    read_sample,
    store_label,
)
from mastodon_assets.warehouse.database import transaction

CHAMPION = "c0ffee"
POSTED_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def empty(postgres_url: SecretStr) -> None:
    """Remove all posts, their labels and all models."""
    with transaction(postgres_url) as connection:
        connection.execute("TRUNCATE masto.toots_raw, masto.toots_sentiment CASCADE")
        connection.execute("DELETE FROM masto.sentiment_models")


def add_champion(postgres_url: SecretStr, path: str = "/models/c0ffee") -> None:
    """Add a champion without a folder."""
    with transaction(postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.sentiment_models (version, trained_at, metrics, corpus, status,"
            " status_reason, path) VALUES (%s, %s, %s, 'tweets', 'champion', 'the first', %s)",
            (CHAMPION, POSTED_AT, Jsonb({"auc": 0.9}), path),
        )


def add_post(
    connection: Connection[Any],
    id_: int,
    text: str,
    *,
    lang: str = "en",
    label: str | None = "positive",
    prob_pos: float = 0.9,
    reason: str = "unsupported_language",
    model_version: str = CHAMPION,
    is_sensitive: bool = False,
) -> None:
    """Add a post with its score; without a label it has the reason."""
    uri = f"https://one.example/users/ada/statuses/{id_}"
    connection.execute(
        "INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash,"
        " favourites, reblogs, replies, is_bot, is_sensitive, instance, status_id, uri, username,"
        " lang, hashtags, content_txt) VALUES (%s, %s, %s, %s, 1, 0, 0, 0, false, %s,"
        " 'one.example', %s, %s, 'ada@one.example', %s, '{}', %s)",
        (id_, *[POSTED_AT] * 3, is_sensitive, str(id_), uri, lang, text),
    )
    connection.execute(
        "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, lang, text, label_str,"
        " prob_pos, label_bin, reason, model_version) VALUES (%s, %s, now(), %s, %s, %s, %s, %s,"
        " %s, %s)",
        (
            *(id_, POSTED_AT, lang, text, label),
            *((prob_pos, int(prob_pos >= 0.5), None) if label else (None, None, reason)),
            model_version,
        ),
    )


def give_label(
    postgres_url: SecretStr, id_: int, coder: str, label: str, *, settles: bool = False
) -> None:
    """Store a label as a coder does."""
    post = shown_post(postgres_url, id_)
    assert post is not None
    assert store_label(postgres_url, id_, post.text_hash, coder, label, settles=settles)


def shown_post(postgres_url: SecretStr, id_: int) -> ShownPost | None:
    """Read a post as a coder sees it."""
    with transaction(postgres_url, snapshot=True) as connection:
        return read_post(connection, id_)


def sample_of(postgres_url: SecretStr) -> Sample:
    """Read the sample in a transaction of its own."""
    with transaction(postgres_url, snapshot=True) as connection:
        return read_sample(connection)
