"""A batch table updated by changes equals the one computed from all posts."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mastodon_assets.batch.refresh import Refreshed, refresh_batch_table
from mastodon_assets.batch.tables import BATCH_TABLES
from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import prepare_session
from mastodon_assets.warehouse.change_log import LOG_READERS, advance_watermark, clear_change_log
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.watermarks import bump_toots_version, toots_version
from mastodon_assets_tests.support.merge_sink import Sink
from mastodon_assets_tests.support.records import TOPIC, delete, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_MIN_TOOTS = 2
_TIMES = [f"2026-11-{day}T{hour}:30:00Z" for day in (19, 20) for hour in (10, 11)]


class _Tables:
    """The batch tables of a database, and their expected rows."""

    def __init__(self, url: SecretStr, spark: "SparkSession", sink: Sink) -> None:
        self.url = url
        self.sink = sink
        self.spark = spark

    def refresh(self, name: str, *, rebuild: bool = False) -> Refreshed:
        return refresh_batch_table(
            lambda: self.spark, self.url, name, min_toots=_MIN_TOOTS, rebuild=rebuild
        )

    def move(self) -> None:
        """Refresh all, by what changed alone."""
        for name in BATCH_TABLES:
            refresh_batch_table(_no_session, self.url, name, min_toots=_MIN_TOOTS)

    def found(self) -> dict[str, list[Any]]:
        return {name: sorted(self.sink.rows(f"TABLE masto.{name}")) for name in BATCH_TABLES}

    def expected(self) -> dict[str, list[Any]]:
        """Counted by hand from the rows of toots_raw."""
        toots = self.sink.rows(
            "SELECT username, lang, hashtags, char_length(content_txt), event_at"
            "  FROM masto.toots_raw"
        )
        users, days = defaultdict(list), defaultdict(list)
        hours: Counter[Any] = Counter()
        languages: Counter[Any] = Counter()
        tags: Counter[str] = Counter()
        for username, lang, hashtags, length, event_at in toots:
            users[username].append(length)
            days[event_at.date()].append(length)
            languages[event_at.date(), lang] += 1
            for tag in hashtags:
                hours[event_at.replace(minute=0), tag] += 1
                tags[tag] += 1
        most = max(tags.values(), default=0)
        tables = {
            "batch_active_users": [
                (name, len(lengths), sum(lengths) / len(lengths))
                for name, lengths in users.items()
                if len(lengths) >= _MIN_TOOTS
            ],
            "batch_hashtag_by_hour": [(*key, count) for key, count in hours.items()],
            "batch_top_hashtag": [(t, count, 1) for t, count in tags.items() if count == most],
            "batch_toots_per_day": [(day, len(lengths)) for day, lengths in days.items()],
            "batch_avg_len_per_day": [
                (day, sum(lengths) / len(lengths)) for day, lengths in days.items()
            ],
            "batch_toots_by_lang_per_day": [(*key, count) for key, count in languages.items()],
        }
        return {name: sorted(rows) for name, rows in tables.items()}


def _no_session() -> NoReturn:
    raise AssertionError("all posts were read although the changes are known")


@pytest.fixture(scope="module")
def tables(database_url: SecretStr, spark: "SparkSession") -> Iterator[_Tables]:
    topic = TopicState(TOPIC, "topic-id", dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 99))
    with connect(database_url) as connection:
        with connection.transaction():
            open_ledger(connection, topic, accept_data_loss=False)
        prepare_session(connection)
        connection.commit()
        made = _Tables(database_url, spark, Sink(connection))
        made.sink.write(upsert("0"))
        for name in BATCH_TABLES:
            assert made.refresh(name).is_from_all
        yield made


@st.composite
def _batches(draw: st.DrawFn) -> list[list[Any]]:
    posts = st.sampled_from(["0", "1", "2", "3", "4"])
    made = []
    for _ in range(draw(st.integers(1, 10))):
        if draw(st.integers(0, 4)) == 0:
            made.append(delete(draw(posts)))
            continue
        made.append(
            upsert(
                draw(posts),
                created_at=draw(st.sampled_from(_TIMES)),
                edited_at=draw(st.none() | st.sampled_from(_TIMES)),
                content=draw(st.sampled_from(["", "a", "bb", "ccc"])),
                language=draw(st.sampled_from(["en", "de", None])),
                username=draw(st.sampled_from(["ada@one.example", "bob@one.example"])),
                hashtags=draw(st.lists(st.sampled_from(["x", "y", "z"]), max_size=3)),
            )
        )
    cut = draw(st.integers(0, len(made)))
    return [batch for batch in (made[:cut], made[cut:]) if batch]


@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches=_batches(), generator=st.randoms())
def test_changes_give_the_same_tables_as_all_posts(
    tables: _Tables, batches: list[list[Any]], generator: random.Random
) -> None:
    # Tombstones of the example before would keep its posts out of this one.
    with tables.sink.connection.transaction():
        tables.sink.connection.execute("DELETE FROM masto.toots_deleted")
    for batch in batches:
        tables.sink.write(*batch)
        if generator.random() < 0.5:
            tables.move()
    tables.move()
    assert tables.found() == tables.expected()


def test_a_rebuild_gives_the_same_tables_and_the_next_change_continues_from_there(
    tables: _Tables,
) -> None:
    tables.sink.write(*(upsert(f"new-{number}", hashtags=["x"]) for number in range(5)))
    tables.move()
    moved = tables.found()
    for name in BATCH_TABLES:
        assert tables.refresh(name, rebuild=True) == Refreshed(0, is_from_all=True)
    assert tables.found() == moved == tables.expected()
    tables.sink.write(delete("new-1"))
    tables.move()
    assert tables.found() == tables.expected()


@pytest.mark.parametrize("name", ["batch_active_users", "batch_toots_per_day"])
def test_a_change_missing_in_the_change_log_is_found_by_reading_all_posts(
    tables: _Tables, name: str
) -> None:
    tables.sink.write(upsert(f"unknown-{name}"))
    with transaction(tables.url) as connection:
        clear_change_log(connection)
    assert tables.refresh(name).is_from_all
    assert not tables.refresh(name).is_from_all
    with transaction(tables.url) as connection:
        bump_toots_version(connection)
    assert tables.refresh(name) == Refreshed(0, is_from_all=True)
    assert tables.found()[name] == tables.expected()[name]


def test_another_minimum_of_toots_rebuilds_the_active_users(tables: _Tables) -> None:
    tables.sink.write(*(upsert(f"few-{n}", username="few@one.example") for n in range(3)))
    tables.refresh("batch_active_users")
    users = {row[0] for row in tables.found()["batch_active_users"]}
    other = refresh_batch_table(
        lambda: tables.spark, tables.url, "batch_active_users", min_toots=10**6
    )
    assert other == Refreshed(len(users), is_from_all=True)
    assert tables.found()["batch_active_users"] == []
    tables.refresh("batch_active_users")
    assert {row[0] for row in tables.found()["batch_active_users"]} == users >= {"few@one.example"}


def test_the_change_log_keeps_nothing_that_every_asset_has_read(tables: _Tables) -> None:
    tables.sink.write(upsert("last"))
    assert tables.sink.rows("SELECT count(*) FROM masto.toot_changes") != [(0,)]
    for name in BATCH_TABLES:
        tables.refresh(name)
    # The scores move by it, too.
    assert set(LOG_READERS) == {*BATCH_TABLES, "toots_sentiment"}
    assert tables.sink.rows("SELECT count(*) FROM masto.toot_changes") != [(0,)]
    with transaction(tables.url) as connection:
        advance_watermark(connection, "toots_sentiment", toots_version=toots_version(connection))
    assert tables.sink.rows("SELECT count(*) FROM masto.toot_changes") == [(0,)]
