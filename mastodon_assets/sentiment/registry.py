"""Which models exist and which one scores: the table `sentiment_models`.

What belongs here: rows of that table, by psycopg. What lies in a model's folder: `store`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from mastodon_assets.locations import Location
from mastodon_assets.sentiment.synthetic import SYNTHETIC_CORPUS

_VERSION_DIGITS = 16
# Transactions that change the champion follow each other; any number nobody else uses.
_MODELS_LOCK = 4_611_003


@dataclass(frozen=True)
class Model:
    """A row of `sentiment_models`."""

    version: str
    trained_at: datetime
    metrics: dict[str, Any]
    corpus: str
    status: str
    path: str


def model_version(corpus_fingerprint: str, parameters: Mapping[str, Any], code_version: str) -> str:
    """16 hex digits that stand for corpus, parameters and code."""
    described = json.dumps([corpus_fingerprint, dict(parameters), code_version], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:_VERSION_DIGITS]


def champion(connection: Connection[Any]) -> Model | None:
    """The model that scores, if there is one."""
    return _one(connection, sql.SQL("status = 'champion'"), ())


def find(connection: Connection[Any], version: str) -> Model | None:
    """The model of that version, whatever its status."""
    return _one(connection, sql.SQL("version = %s"), (version,))


def register(
    connection: Connection[Any],
    *,
    version: str,
    trained_at: datetime,
    metrics: Mapping[str, Any],
    corpus: str,
    path: Location,
) -> Model:
    """Add a model, whose folder is complete, and make it champion; call it in a transaction.

    It becomes a candidate instead if its corpus is the synthetic one and the champion's is not: a
    demonstration never takes the place of a real model. A version that is there keeps its status;
    its path and metrics are those of the newest training.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MODELS_LOCK,))
    known, current = find(connection, version), champion(connection)
    status = known.status if known else _status(corpus, current)
    if known is None and status == "champion":
        # Before the insert: a unique index allows one champion, in every statement.
        connection.execute(
            "UPDATE masto.sentiment_models SET status = 'retired' WHERE status = 'champion'"
        )
    connection.execute(
        """
        INSERT INTO masto.sentiment_models (version, trained_at, metrics, corpus, status, path)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (version) DO UPDATE
           SET trained_at = excluded.trained_at, metrics = excluded.metrics, path = excluded.path
        """,
        (version, trained_at, Jsonb(dict(metrics)), corpus, status, str(path)),
    )
    model = find(connection, version)
    assert model is not None
    return model


def _status(corpus: str, current: Model | None) -> str:
    is_demonstration = corpus == SYNTHETIC_CORPUS
    if is_demonstration and current and current.corpus != SYNTHETIC_CORPUS:
        return "candidate"
    return "champion"


def _one(connection: Connection[Any], condition: sql.SQL, values: tuple[str, ...]) -> Model | None:
    with connection.cursor(row_factory=class_row(Model)) as cursor:
        return cursor.execute(
            sql.SQL(
                "SELECT version, trained_at, metrics, corpus, status, path"
                "  FROM masto.sentiment_models WHERE {}"
            ).format(condition),
            values,
        ).fetchone()
