"""Tables of sums corrected by their difference, in chunks that let others in between."""

import threading
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from pydantic import SecretStr

from mastodon_assets.warehouse import locks
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import next_chunk, take_write_lock, write_in_chunks
from mastodon_assets.warehouse.post_sums import POST_SUMS
from mastodon_assets.warehouse.sum_tables import correct_sums
from mastodon_assets.warehouse.tables import BATCH_TOOTS_PER_DAY

(PER_DAY,) = (sums.sum_table for sums in POST_SUMS if sums.table == BATCH_TOOTS_PER_DAY)


def per_day(counts: dict[int, int]) -> pa.Table:
    return pa.table(
        {
            "toots_count": pa.array(counts.values(), pa.int64()),
            "day": pa.array([date(2026, 1, day) for day in counts], pa.date32()),
        }
    )


def correct(
    url: SecretStr, counts: dict[int, int], meanwhile: Callable[[], object] = lambda: None
) -> int:
    def compute(connection: psycopg.Connection[Any]) -> Iterator[pa.Table]:
        connection.execute("SELECT 1")  # The snapshot is from here on.
        meanwhile()
        yield per_day(counts).select(["day", "toots_count"])

    with transaction(url) as connection:
        return correct_sums(connection, PER_DAY, compute)


def stored(url: SecretStr) -> dict[int, tuple[int, str]]:
    """Day of the month to count and the transaction that wrote the row."""
    with transaction(url, snapshot=True) as connection:
        found = connection.execute(
            "SELECT day, toots_count, xmin::text FROM masto.batch_toots_per_day"
        )
        return {day.day: (count, xmin) for day, count, xmin in found}


def counts_of(url: SecretStr) -> dict[int, int]:
    return {day: count for day, (count, _) in stored(url).items()}


def test_a_correction_writes_only_the_rows_that_differ(fresh_database_url: SecretStr) -> None:
    assert correct(fresh_database_url, {1: 10, 2: 20, 3: 30}) == 3
    before = stored(fresh_database_url)
    assert correct(fresh_database_url, {1: 10, 2: 21, 4: 40}) == 3
    after = stored(fresh_database_url)
    assert {day: count for day, (count, _) in after.items()} == {1: 10, 2: 21, 4: 40}
    assert after[1] == before[1]
    assert after[2][1] != before[2][1]
    assert correct(fresh_database_url, {2: 21, 4: 40, 1: 10}) == 0
    assert stored(fresh_database_url) == after
    assert correct(fresh_database_url, {}) == 3
    assert stored(fresh_database_url) == {}


def test_what_others_add_during_a_correction_is_kept(fresh_database_url: SecretStr) -> None:
    correct(fresh_database_url, {1: 10, 2: 20})

    def add() -> None:
        with transaction(fresh_database_url) as connection:
            take_write_lock(connection)
            connection.execute("UPDATE masto.batch_toots_per_day SET toots_count = toots_count + 1")

    assert correct(fresh_database_url, {1: 15, 2: 20}, add) == 1
    assert counts_of(fresh_database_url) == {1: 16, 2: 21}


def test_an_interrupted_correction_is_continued_by_the_next(
    fresh_database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(locks, "_LEAST_CHUNK", 1)
    monkeypatch.setattr(locks, "_LARGEST_CHUNK", 1)
    right = {1: 1, 2: 2, 3: 3}
    with transaction(fresh_database_url) as connection:
        # The third row is refused.
        connection.execute(
            "ALTER TABLE masto.batch_toots_per_day ADD CONSTRAINT small CHECK (toots_count < 3)"
        )
    with (
        pytest.raises(psycopg.errors.CheckViolation),
        psycopg.connect(fresh_database_url.get_secret_value()) as connection,
    ):
        correct_sums(connection, PER_DAY, lambda _: [per_day(right).select(["day", "toots_count"])])
    written = counts_of(fresh_database_url)
    assert written.items() < right.items()
    with transaction(fresh_database_url) as connection:
        connection.execute("ALTER TABLE masto.batch_toots_per_day DROP CONSTRAINT small")
    assert correct(fresh_database_url, right) == 3 - len(written)
    assert counts_of(fresh_database_url) == right


def test_whoever_waits_for_the_write_lock_gets_it_between_two_chunks(
    fresh_database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(locks, "_LARGEST_CHUNK", 1)
    order: list[str] = []

    def wait() -> None:
        with transaction(fresh_database_url) as other:
            take_write_lock(other)
            order.append("other")

    waiting = threading.Thread(target=wait)
    with transaction(fresh_database_url) as connection:

        def write(_most: int) -> int:
            order.append("chunk")
            if len(order) > 1:
                return 0
            waiting.start()
            while not connection.execute(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchone():
                pass
            return 1

        assert write_in_chunks(connection, write)
    waiting.join()
    assert order == ["chunk", "other", "chunk"]


def test_a_chunk_becomes_larger_or_smaller_by_the_time_that_the_last_one_took() -> None:
    assert next_chunk(1_000, 0.2) == 1_000
    assert next_chunk(1_000, 0.0) == 2_000
    assert next_chunk(1_000, 0.4) == 500
    assert next_chunk(1_000, 60) == 250
    assert (next_chunk(50, 60), next_chunk(20_000, 0.01)) == (50, 20_000)


def test_no_chunk_begins_after_the_end_of_the_time(fresh_database_url: SecretStr) -> None:
    with transaction(fresh_database_url) as connection:
        assert not write_in_chunks(connection, lambda most: most, until=0)
