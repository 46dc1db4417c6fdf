import random
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import BatchCounts, prepare_session, write_batch
from mastodon_assets.stream.purge import purge_rows
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.post_sums import POST_SUMS
from mastodon_assets.warehouse.suppression_list import (
    Kind,
    SuppressionKeyError,
    SuppressionList,
    add_entries,
    entry_hash,
)
from mastodon_assets.warehouse.watermarks import toots_version
from mastodon_assets_tests.support.records import TOPIC, delete, on_partition, staged, upsert

KEY = SecretStr("a key for tests only")
_EMPTIED = (
    "toots_raw",
    "toot_metrics_windowed",
    "user_avg_length_windowed",
    "toot_aliases",
    "toots_deleted",
    "toots_rejected",
    "toots_sentiment",
    "toots_unscored",
    *(sums.table.name for sums in POST_SUMS),
    "withdrawn",
)


class Tables:
    """A database whose topic can be read again from the beginning."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.next = 0

    def write(self, messages: Sequence[Any], key: SecretStr | None = KEY) -> BatchCounts:
        rows = staged(on_partition(messages, 0, self.next))
        with self.connection.transaction():
            counts = write_batch(self.connection, rows, {TOPIC: "topic-id"}, suppression_key=key)
        self.next += len(messages)
        return counts

    def purge(self, kind: Kind, name: str) -> dict[str, int]:
        covered = SuppressionList(KEY, frozenset({entry_hash(KEY, kind, name)}))
        with self.connection.transaction():
            add_entries(self.connection, KEY, kind, [name])
        counted = purge_rows(self.connection, covered, dry_run=True)
        removed = purge_rows(self.connection, covered)
        assert counted == removed
        return removed

    def begin_again(self) -> None:
        """The ledger is at the topic's beginning: everything is read once more."""
        with self.connection.transaction():
            self.connection.execute("UPDATE masto.kafka_offsets SET next_offset = 0")
        self.next = 0

    def empty(self) -> None:
        with self.connection.transaction():
            for name in _EMPTIED:
                self.connection.execute(f"TRUNCATE masto.{name} CASCADE".encode())
        self.begin_again()

    def rows(self, query: str) -> list[Any]:
        with self.connection.transaction():
            return self.connection.execute(query.encode()).fetchall()

    def contents(self, *names: str) -> dict[str, list[Any]]:
        return {name: sorted(self.rows(f"TABLE masto.{name}")) for name in names}


@pytest.fixture(scope="module")
def opened(database_url: SecretStr) -> Iterator[Tables]:
    with connect(database_url) as connection:
        with connection.transaction():
            state = TopicState(TOPIC, "topic-id", {0: 0}, {0: 10**6})
            open_ledger(connection, state, accept_data_loss=False)
        prepare_session(connection)
        connection.commit()
        yield Tables(connection)


@pytest.fixture
def tables(opened: Tables) -> Tables:
    opened.empty()
    return opened


BOB = {"username": "bob@two.example"}


def by_bob(status_id: str, **changes: Any) -> dict[str, Any]:
    uri = f"https://two.example/users/bob/statuses/{status_id}"
    return upsert(status_id, uri=uri, **{**BOB, **changes})


def derive_all(tables: Tables) -> None:
    with tables.connection.transaction():
        tables.connection.execute(
            "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, lang, reason, text)"
            " SELECT id, created_at, now(), lang, 'no_model', content_txt FROM masto.toots_raw"
        )
        tables.connection.execute(
            "INSERT INTO masto.toots_engagement (id, read_at, favourites, due_hours)"
            " SELECT id, now(), 1, 1 FROM masto.toots_raw"
        )
        tables.connection.execute(
            "INSERT INTO masto.annotation_sample (id, drawn_at, stratum_posts, place, is_training,"
            " stratum) SELECT id, now(), 1, 1, false, 'en, no label' FROM masto.toots_raw"
        )
        tables.connection.execute(
            "INSERT INTO masto.annotations (id, coder, label, text_hash)"
            " SELECT id, unnest(ARRAY['ada', 'bob']), 'neutral', ''"
            "   FROM masto.annotation_sample"
        )


def test_a_purge_removes_all_of_an_account_and_says_how_much(tables: Tables) -> None:
    tables.write(
        [
            upsert("1"),
            by_bob("2"),
            by_bob("2", instance="three.example"),
            by_bob("3", username="Bob@TWO.example", created_at="2026-11-20T11:00:00Z"),
            by_bob("4", favourites=-1),
            upsert("5", favourites=-1, content="hello @bob@two.example"),
            upsert("6", content="hello @bob@two.example"),
        ]
    )
    derive_all(tables)

    removed = tables.purge("account", "bob@two.example")

    assert removed == {
        "toots_raw": 2,
        "toot_metrics_windowed": 1,
        "user_avg_length_windowed": 2,
        "user_totals": 1,
        "toots_sentiment": 2,
        "toots_engagement": 2,
        "toots_unscored": 2,
        "toot_aliases": 3,
        "home_ids": 0,
        "home_versions": 0,
        "home_questions": 0,
        "toots_rejected": 1,
        "annotation_sample": 2,
        "annotations": 4,
    }
    assert [row[0] for row in tables.rows("SELECT username FROM masto.toots_raw")] == [
        "ada@one.example"
    ] * 2
    assert tables.rows("SELECT kafka_offset FROM masto.toots_rejected") == [(5,)]


def test_a_deleted_post_takes_its_labels_by_people_along(tables: Tables) -> None:
    tables.write([upsert("1"), by_bob("2")])
    derive_all(tables)

    tables.write([delete("1")])

    ids = tables.rows("SELECT id FROM masto.toots_raw")
    assert tables.rows("SELECT id FROM masto.annotation_sample") == ids
    assert tables.rows("SELECT DISTINCT id FROM masto.annotations") == ids


def test_a_purge_leaves_what_would_be_there_if_the_account_had_never_posted(
    tables: Tables,
) -> None:
    names = ("toots_raw", "toot_metrics_windowed", "user_avg_length_windowed", "toot_aliases")
    others = [upsert("1"), upsert("3", language="de")]
    tables.write(others)
    expected = tables.contents(*names)
    tables.empty()
    tables.write([others[0], by_bob("2"), by_bob("4", language="fr"), others[1]])

    tables.purge("account", "bob@two.example")

    assert tables.contents(*names) == expected


def test_a_purge_asks_for_a_refresh_where_it_removed_something(tables: Tables) -> None:
    tables.write([by_bob("1")])
    versions = []
    for _ in range(2):
        tables.purge("account", "bob@two.example")
        with tables.connection.transaction():
            versions.append(toots_version(tables.connection))
    tables.purge("account", "nobody@two.example")
    with tables.connection.transaction():
        versions.append(toots_version(tables.connection))

    assert len(set(versions)) == 1


@pytest.mark.parametrize("kind", ["account", "server"])
def test_reading_all_messages_again_brings_nothing_back(tables: Tables, kind: Kind) -> None:
    messages = [
        upsert("1"),
        by_bob("2"),
        by_bob("2", instance="three.example", edited_at="2026-11-20T12:00:00Z"),
        by_bob("4", favourites=-1),
        b'{"v":1,"op":"upsert","username":"bob@two.example","content":"cut of',
        delete("9"),
        by_bob("9"),
    ]
    tables.write(messages)
    tables.purge(kind, "bob@two.example" if kind == "account" else "two.example")
    before = tables.contents("toots_raw", "toot_aliases", "toots_rejected", "toots_deleted")
    tables.begin_again()

    counts = tables.write(messages)

    assert counts == BatchCounts(stale=1, suppressed=5, delete_messages=1)
    assert tables.contents(*before) == before
    assert tables.rows("SELECT count(*) FROM masto.toots_rejected") == [(0,)]
    # All but the key under which a post that was deleted before is kept away.
    texts = str(tables.contents(*_EMPTIED[:-1]))
    assert "bob" not in texts


def test_a_purged_server_takes_with_it_what_was_read_from_it(tables: Tables) -> None:
    tables.write(
        [
            upsert("1", username="ada@five.example", instance="five.example"),
            by_bob("2", instance="five.example"),
            by_bob("3", instance="one.example"),
            by_bob("3", instance="five.example", received_at="2026-11-20T13:00:00Z"),
        ]
    )

    removed = tables.purge("server", "FIVE.example")

    assert (removed["toots_raw"], removed["toot_aliases"]) == (2, 3)
    assert tables.rows("SELECT instance, status_id FROM masto.toot_aliases") == [
        ("one.example", "3")
    ]
    assert tables.write([by_bob("8"), by_bob("9", instance="five.example")]) == BatchCounts(
        stored=1, suppressed=1
    )


def test_a_deleted_post_stays_away_when_the_server_that_reported_it_withdraws(
    tables: Tables,
) -> None:
    tables.write([by_bob("1"), by_bob("1", instance="five.example")])
    tables.write([delete("1", instance="five.example")])
    tables.purge("server", "five.example")

    assert tables.write([by_bob("1")]) == BatchCounts(tombstoned=1)


def test_a_delete_of_a_suppressed_post_is_stored(tables: Tables) -> None:
    tables.purge("server", "one.example")

    assert tables.write([delete("1")]) == BatchCounts(delete_messages=1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("account", "sam@one.example"),
        ("account", "Sam@Social.One.example"),
        ("server", "social.one.example"),
    ],
)
def test_a_person_of_two_domains_goes_and_stays_away_under_either(
    tables: Tables, kind: Kind, name: str
) -> None:
    uri = "https://social.one.example/users/sam/statuses/"
    tables.write([upsert("1", username="sam@one.example", uri=f"{uri}1")])

    assert tables.purge(kind, name)["toots_raw"] == 1
    later = upsert("2", instance="two.example", username="SAM@One.example", uri=f"{uri}2")
    assert tables.write([later]) == BatchCounts(suppressed=1)


def test_spellings_of_an_account_and_of_a_hashtag_are_counted_as_one(tables: Tables) -> None:
    tables.write(
        [
            upsert("1", username="ada@bücher.example", hashtags=["cafe\u0301", "ＡＩ"]),
            upsert("2", uri="https://x.example/2", username="Ada@xn--bcher-kva.example"),
            upsert("3", uri="https://x.example/3", hashtags=["caf\u00e9", "ai"]),
        ]
    )

    assert tables.rows(
        "SELECT username, sum(toots_count)::int FROM masto.user_avg_length_windowed"
        " GROUP BY 1 ORDER BY 1"
    ) == [("ada@one.example", 1), ("ada@xn--bcher-kva.example", 2)]
    assert tables.rows("SELECT DISTINCT hashtags FROM masto.toots_raw ORDER BY 1") == [
        (["café", "ai"],),
        (["news"],),
    ]


@pytest.mark.parametrize("key", [None, SecretStr("another key for tests")])
def test_a_merge_that_cannot_know_who_has_withdrawn_writes_nothing(
    tables: Tables, key: SecretStr | None
) -> None:
    assert tables.write([upsert("1")], key=None) == BatchCounts(stored=1)
    tables.purge("account", "bob@two.example")

    with pytest.raises(SuppressionKeyError, match="WITHDRAWN_KEY"):
        tables.write([upsert("2")], key=key)
    assert tables.rows("SELECT status_id FROM masto.toots_raw") == [("1",)]


_MINUTES = [f"2026-11-20T11:{minute:02d}:30Z" for minute in (1, 1, 2)]
_AUTHORS = ["ada@one.example", "bob@two.example", "eve@two.example"]


@st.composite
def _messages(draw: st.DrawFn) -> list[Any]:
    """Posts, edits and deletes; a post has one author, reported by its number."""
    made = []
    for _ in range(draw(st.integers(1, 12))):
        number = draw(st.integers(0, 5))
        server = draw(st.sampled_from(["one.example", "three.example"]))
        if draw(st.integers(0, 5)) == 0:
            made.append(delete(f"{server}-{number}", instance=server))
            continue
        made.append(
            upsert(
                f"{server}-{number}",
                instance=server,
                uri=f"https://two.example/{number}",
                created_at=draw(st.sampled_from(_MINUTES)),
                edited_at=draw(st.none() | st.sampled_from(_MINUTES)),
                received_at=draw(st.sampled_from(_MINUTES)),
                content=draw(st.sampled_from(["a", "bb"])),
                username=_AUTHORS[number % 3],
                favourites=draw(st.sampled_from([0, 0, 0, -1])),
            )
        )
    return made


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=_messages(), generator=st.randoms(), at=st.integers(0, 12))
def test_when_somebody_withdraws_and_what_is_read_again_changes_no_row(
    tables: Tables, messages: list[Any], generator: random.Random, at: int
) -> None:
    names = ("toots_raw", "toot_metrics_windowed", "user_avg_length_windowed", "toots_deleted")
    shuffled = generator.sample(messages, len(messages))
    tables.empty()
    tables.write([each for each in messages if each.get("username") != "bob@two.example"] or [b""])
    expected = tables.contents(*names)
    tables.empty()
    for part in filter(None, (messages[:at], messages[at:])):
        tables.write(part)
        tables.purge("account", "bob@two.example")
    assert tables.contents(*names) == expected
    tables.begin_again()
    counts = tables.write(shuffled)
    assert counts.messages == len(messages)
    assert counts.suppressed == sum(each.get("username") == "bob@two.example" for each in messages)
    assert tables.contents(*names) == expected
    with tables.connection.transaction():
        in_windows, rows = window_sum_and_rows(tables.connection)
    assert in_windows == rows
