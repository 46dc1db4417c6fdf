from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets.stream import query
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.ledger import LedgerConflictError
from mastodon_assets.stream.merge import BatchCounts, write_batch
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.records import upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_writer_that_comes_second_skips_what_the_first_has_written(
    spark: "SparkSession",
    settings: Settings,
    produce: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    produce([upsert("1"), upsert("2")])

    def overtaken(*arguments: Any, **options: Any) -> BatchCounts:
        monkeypatch.setattr(query, "write_batch", write_batch)
        other = drain(lambda: spark, settings, report=print)
        assert other.counts == BatchCounts(stored=2)
        return write_batch(*arguments, **options)

    monkeypatch.setattr(query, "_CONFLICT_PAUSE_SECONDS", 0)
    monkeypatch.setattr(query, "write_batch", overtaken)
    summary = drain(lambda: spark, settings, report=print)
    assert summary.counts == BatchCounts()
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert window_sum_and_rows(connection) == (2, 2)


def test_a_ledger_that_never_agrees_ends_the_drain_with_its_offsets(
    spark: "SparkSession",
    settings: Settings,
    produce: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    produce([upsert("1")])
    attempts = []

    def disagree(*arguments: Any, **options: Any) -> BatchCounts:
        attempts.append(arguments)
        raise LedgerConflictError("this batch starts at offset 0, the ledger is at 9")

    monkeypatch.setattr(query, "_CONFLICT_PAUSE_SECONDS", 0)
    monkeypatch.setattr(query, "write_batch", disagree)
    with pytest.raises(LedgerConflictError, match="the ledger is at 9"):
        drain(lambda: spark, settings, report=print)
    assert len(attempts) == 5
