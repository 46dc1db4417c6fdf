"""The model registry: the table `sentiment_models`, which models exist and which one scores.

What belongs here: rows of that table, by psycopg. What is in a model's folder: `store`.
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

from mastodon_assets.errors import PlatformError
from mastodon_assets.sentiment.models.promotion import Champion, Verdict, judge
from mastodon_assets.spark.storage import StoragePath
from mastodon_assets.warehouse.locks import MODELS_LOCK

_VERSION_DIGITS = 16


class UnknownModelError(PlatformError):
    """No row of `sentiment_models` has that version."""


class PromotionRefusedError(PlatformError):
    """The model measured worse than the champion, or there is no previous champion."""


@dataclass(frozen=True)
class Model:
    """A row of `sentiment_models`."""

    version: str
    trained_at: datetime
    metrics: dict[str, Any]
    corpus: str
    status: str
    status_reason: str
    promoted_at: datetime | None
    path: str


def model_version(corpus_fingerprint: str, parameters: Mapping[str, Any], code_version: str) -> str:
    """Return 16 hex digits, a hash of corpus, parameters and code version."""
    described = json.dumps([corpus_fingerprint, dict(parameters), code_version], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:_VERSION_DIGITS]


def champion(connection: Connection[Any]) -> Model | None:
    """Return the model that scores, if there is one."""
    return _one(connection, sql.SQL("status = 'champion'"), ())


def find(connection: Connection[Any], version: str) -> Model | None:
    """Return the model of that version, whatever its status."""
    return _one(connection, sql.SQL("version = %s"), (version,))


def require(connection: Connection[Any], version: str) -> Model:
    """Return the model of that version.

    Raises:
        UnknownModelError: there is none.
    """
    model = find(connection, version)
    if model is None:
        raise UnknownModelError(
            f"there is no model {version!r}; to list all: mastodon-assets model list"
        )
    return model


def all_models(connection: Connection[Any]) -> list[Model]:
    """Return all models, the newest training first."""
    return _read(connection, sql.SQL("true ORDER BY trained_at DESC, version"), ())


def register(
    connection: Connection[Any],
    *,
    version: str,
    trained_at: datetime,
    metrics: Mapping[str, Any],
    corpus: str,
    path: StoragePath,
    force: bool = False,
) -> Model:
    """Add a model whose folder is complete; call it in a transaction.

    It becomes champion if `promotion.judge` finds it not worse than the present one, or with
    `force`; else it is a candidate. A version that exists keeps its status unless `force` is set,
    and gets path and metrics of the newest training.
    """
    _lock(connection)
    current = champion(connection)
    verdict = judge(
        metrics,
        corpus,
        Champion(current.version, current.corpus, current.metrics) if current else None,
    )
    if force and not verdict.is_promoted:
        verdict = Verdict(True, f"forced, although {verdict.reason}")
    added = connection.execute(
        """
        INSERT INTO masto.sentiment_models AS m
               (version, trained_at, metrics, corpus, status, status_reason, path)
        VALUES (%s, %s, %s, %s, 'candidate', %s, %s)
        ON CONFLICT (version) DO UPDATE
           SET trained_at = excluded.trained_at, path = excluded.path,
               -- What people's labels say of a version is not part of its training.
               metrics = excluded.metrics || CASE WHEN m.metrics ? 'own_posts'
                   THEN jsonb_build_object('own_posts', m.metrics -> 'own_posts')
                   ELSE '{}' END
        RETURNING xmax = 0
        """,
        (version, trained_at, Jsonb(dict(metrics)), corpus, verdict.reason, str(path)),
    ).fetchone()
    is_champion = current is not None and current.version == version
    if verdict.is_promoted and (added == (True,) or (force and not is_champion)):
        _make_champion(connection, version, verdict.reason)
    return require(connection, version)


def record_own_posts(
    connection: Connection[Any], version: str, figures: Mapping[str, Any]
) -> Model:
    """Record under `own_posts` in a model's metrics how good it is on posts of this installation.

    Call it in a transaction.
    """
    connection.execute(
        "UPDATE masto.sentiment_models SET metrics = metrics || %s WHERE version = %s",
        (Jsonb({"own_posts": dict(figures)}), version),
    )
    return require(connection, version)


def promote(connection: Connection[Any], version: str, *, force: bool = False) -> Model:
    """Make that model champion; check its folder first, and call it in a transaction.

    A candidate measured worse, or could not be compared, so it needs `force`.

    Raises:
        UnknownModelError: there is no such model.
        PromotionRefusedError: it is a candidate, and `force` is not set.
    """
    _lock(connection)
    model = require(connection, version)
    if model.status == "champion":
        return model
    if model.status == "candidate" and not force:
        raise PromotionRefusedError(
            f"model {version} is a candidate: {model.status_reason}; to promote it anyway:"
            f" mastodon-assets model promote {version} --force"
        )
    return _make_champion(connection, version, "promoted by hand")


def predecessor(connection: Connection[Any]) -> Model:
    """Return the previous champion.

    Raises:
        PromotionRefusedError: there is none.
    """
    found = _read(
        connection,
        sql.SQL("status = 'retired' AND promoted_at IS NOT NULL ORDER BY promoted_at DESC LIMIT 1"),
        (),
    )
    if not found:
        raise PromotionRefusedError(
            "no model was champion before this one; to list all models: mastodon-assets model list"
        )
    return found[0]


def roll_back(connection: Connection[Any]) -> Model:
    """Restore the previous champion; check its folder first, and call it in a transaction.

    The promotion of the present champion is undone, so a second roll-back goes one further back.

    Raises:
        PromotionRefusedError: there is no previous champion.
    """
    _lock(connection)
    earlier, current = predecessor(connection), champion(connection)
    connection.execute(
        "UPDATE masto.sentiment_models SET promoted_at = NULL WHERE status = 'champion'"
    )
    reason = f"rolled back from {current.version}" if current else "rolled back"
    return _make_champion(connection, earlier.version, reason, promoted_at=earlier.promoted_at)


def _lock(connection: Connection[Any]) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MODELS_LOCK,))


def _make_champion(
    connection: Connection[Any], version: str, reason: str, promoted_at: datetime | None = None
) -> Model:
    # Before the promotion: a unique index allows one champion in every statement.
    connection.execute(
        "UPDATE masto.sentiment_models SET status = 'retired', status_reason = %s"
        " WHERE status = 'champion'",
        (f"{version} took its place: {reason}",),
    )
    connection.execute(
        "UPDATE masto.sentiment_models SET status = 'champion', status_reason = %s,"
        " promoted_at = coalesce(%s, clock_timestamp()) WHERE version = %s",
        (reason, promoted_at, version),
    )
    return require(connection, version)


def _one(connection: Connection[Any], condition: sql.SQL, values: tuple[str, ...]) -> Model | None:
    found = _read(connection, condition, values)
    return found[0] if found else None


def _read(connection: Connection[Any], condition: sql.SQL, values: tuple[str, ...]) -> list[Model]:
    with connection.cursor(row_factory=class_row(Model)) as cursor:
        return cursor.execute(
            sql.SQL(
                "SELECT version, trained_at, metrics, corpus, status, status_reason, promoted_at,"
                "       path"
                "  FROM masto.sentiment_models WHERE {}"
            ).format(condition),
            values,
        ).fetchall()
