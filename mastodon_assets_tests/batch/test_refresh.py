"""Batch tables follow each change of posts and equal those computed from all posts."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mastodon_assets.batch import refresh
from mastodon_assets.batch.refresh import Refreshed, refresh_batch_table
from mastodon_assets.batch.tables import BATCH_TABLES, BatchTable
from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import prepare_session
from mastodon_assets.warehouse import locks, sum_tables
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.post_sums import PostSums
from mastodon_assets.warehouse.rows import copy_arrow
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
            assert made.refresh(name) == Refreshed(0, is_from_all=False)
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
@given(batches=_batches())
def test_every_change_of_posts_leaves_the_tables_that_all_posts_give(
    tables: _Tables, batches: list[list[Any]]
) -> None:
    # Tombstones of the example before would keep its posts out of this one.
    with tables.sink.connection.transaction():
        tables.sink.connection.execute("DELETE FROM masto.toots_deleted")
    for batch in batches:
        tables.sink.write(*batch)
        assert tables.found() == tables.expected()


def test_a_rebuild_by_spark_gives_the_same_tables_and_the_next_change_continues_from_there(
    tables: _Tables,
) -> None:
    tables.sink.write(*(upsert(f"new-{number}", hashtags=["x"]) for number in range(5)))
    right = tables.found()
    for name in BATCH_TABLES:
        assert tables.refresh(name, rebuild=True) == Refreshed(0, is_from_all=True)
    assert tables.found() == right == tables.expected()
    tables.sink.write(delete("new-1"))
    assert tables.found() == tables.expected()


def test_a_rebuild_collects_few_rows_at_once_however_many_hashtags_the_posts_have(
    tables: _Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.sink.write(
        *(upsert(f"many-{n}", hashtags=[f"{n}-{tag}" for tag in range(200)]) for n in range(3))
    )
    right = tables.found()
    with tables.sink.connection.transaction():
        tables.sink.connection.execute("DELETE FROM masto.batch_hashtag_by_hour")
    collected: list[int] = []

    def copy(connection: Any, target: Any, rows: Any) -> None:
        collected.append(rows.num_rows)
        copy_arrow(connection, target, rows)

    monkeypatch.setattr(sum_tables, "copy_arrow", copy)
    monkeypatch.setattr(refresh, "_ROWS_PER_SLICE", 50)
    changed = tables.refresh("batch_hashtag_by_hour", rebuild=True).rows_changed
    assert changed > 600
    assert tables.found() == right == tables.expected()
    assert sum(collected) > 600
    # Slices are as equal as a hash makes them.
    assert max(collected) < 100


@pytest.mark.parametrize("sums", [batch.sums for batch in BATCH_TABLES.values()])
def test_a_rebuild_corrects_missing_wrong_and_surplus_sums_while_the_merge_goes_on(
    tables: _Tables, sums: PostSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(name for name, batch in BATCH_TABLES.items() if batch.sums == sums)
    tables.sink.write(
        upsert("a", hashtags=["x"]),
        upsert("b", hashtags=["y"], username="bob@one.example", created_at=_TIMES[0]),
    )
    monkeypatch.setattr(locks, "_LARGEST_CHUNK", 1)
    monkeypatch.setattr(locks, "_FIRST_CHUNK", 1)
    with tables.sink.connection.transaction():
        table = f"masto.{sums.table.name}".encode()
        tables.sink.connection.execute(b"UPDATE %b SET toots_count = toots_count + 7" % table)
        tables.sink.connection.execute(
            b"DELETE FROM %b WHERE ctid = (SELECT min(ctid) FROM %b)" % (table, table)
        )
    of_all = BATCH_TABLES[name].of_all

    def of_all_while_posts_come(toots: Any) -> Any:
        computed = of_all(toots).persist()
        computed.count()
        # In another language, and of another time and user: what is missing stays untouched.
        tables.sink.write(
            upsert(f"late-{name}", language="fr", username="late@one.example", hashtags=["late"])
        )
        return computed

    changed = replace(BATCH_TABLES[name], of_all=of_all_while_posts_come)
    monkeypatch.setitem(cast(dict[str, BatchTable], BATCH_TABLES), name, changed)
    assert tables.refresh(name, rebuild=True).rows_changed > 0
    assert tables.found() == tables.expected()


def test_another_minimum_of_toots_takes_effect_without_reading_posts(tables: _Tables) -> None:
    tables.sink.write(*(upsert(f"few-{n}", username="few@one.example") for n in range(3)))
    users = {row[0] for row in tables.found()["batch_active_users"]}
    assert "few@one.example" in users
    refreshed = refresh_batch_table(
        lambda: tables.spark, tables.url, "batch_active_users", min_toots=10**6
    )
    assert refreshed == Refreshed(0, is_from_all=False)
    assert tables.found()["batch_active_users"] == []
    tables.refresh("batch_active_users")
    assert {row[0] for row in tables.found()["batch_active_users"]} == users
