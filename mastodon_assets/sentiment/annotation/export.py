"""Labelled posts as CSV: texts to train with, or every label of every coder.

What belongs here: the columns of both files. Only their owner may read them: they hold texts.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.errors import SettingsError
from mastodon_assets.files import atomic_file
from mastodon_assets.sentiment.annotation.labels import SampledPost, decided, read_sample
from mastodon_assets.sentiment.annotation.sample import AnnotationError
from mastodon_assets.warehouse.database import transaction

# As SENTIMENT_CALIBRATION has it.
TRAINING_COLUMNS = ("label", "text", "lang")
# No column `label`, so that it cannot be taken for a file to train with: it has posts that measure.
LABEL_COLUMNS = (
    *("id", "coder", "coder_label", "settles", "labelled_at", "text", "lang"),
    *("is_training", "drawn_at", "stratum", "stratum_posts"),
)


def export_training(postgres_url: SecretStr, path: Path) -> Counter[tuple[str, str]]:
    """Write the posts that were drawn for training and have a label that counts.

    Returns:
        The posts written, by language and label.

    Raises:
        AnnotationError: There is none.
        SettingsError: The file cannot be written.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, snapshot=True) as connection:
        sample = read_sample(connection)
        labels = {
            post: label
            for post in sample.posts
            if post.is_training and (label := decided(sample.labels_of(post))) is not None
        }
        if not labels:
            raise AnnotationError(
                "no post that was drawn for training has a label that counts; draw posts by"
                " mastodon-assets annotate sample --training, and let two coders label them"
            )
        texts = _texts(connection, labels)
    rows = ((label, texts[post.id], post.language) for post, label in labels.items())
    _write(path, TRAINING_COLUMNS, rows)
    return Counter((post.language, label) for post, label in labels.items())


def export_labels(postgres_url: SecretStr, path: Path) -> int:
    """Write each label of each coder, with its text and how the post was drawn.

    Returns:
        The number of labels.

    Raises:
        AnnotationError: There is none.
        SettingsError: The file cannot be written.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, snapshot=True) as connection:
        sample = read_sample(connection)
        labels = [(post, label) for post in sample.posts for label in sample.labels_of(post)]
        if not labels:
            raise AnnotationError(
                "nobody has labelled a post yet; run: mastodon-assets annotate label"
            )
        texts = _texts(connection, [post for post, _ in labels])
    rows = (
        (
            *(post.id, label.coder, label.label, label.settles, label.labelled_at.isoformat()),
            *(texts[post.id], post.language, post.is_training, post.drawn_at.isoformat()),
            *(post.stratum, post.stratum_posts),
        )
        for post, label in labels
    )
    _write(path, LABEL_COLUMNS, rows)
    return len(labels)


def _texts(connection: Connection[Any], posts: Iterable[SampledPost]) -> dict[int, str]:
    return dict(
        connection.execute(
            "SELECT id, content_txt FROM masto.toots_raw WHERE id = ANY(%s)",
            ([post.id for post in posts],),
        ).fetchall()
    )


def _write(path: Path, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    try:
        with atomic_file(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name another file") from error
