import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mastodon_assets.contract.messages import message_key
from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.sentiment.scoring.score import merge_scores, read_posts
from mastodon_assets.stream.ledger import (
    DataLossError,
    LedgerConflictError,
    advance_ledger,
    lag,
    open_ledger,
    read_ledger,
)
from mastodon_assets.stream.merge import (
    BatchAccountError,
    BatchCounts,
    PayloadsNeededError,
    write_batch,
)
from mastodon_assets.stream.windows import rebuild_windows
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.hourly import hours_that_differ, rebuild_hourly, refresh_hours
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rollups import days_that_differ, rebuild_rollups
from mastodon_assets.warehouse.tables import TABLES
from mastodon_assets_tests.support.collision import uris_with_one_hash
from mastodon_assets_tests.support.hourly_rows import (
    all_hours_of,
    daily_rows,
    hourly_rows,
    stored_rows,
)
from mastodon_assets_tests.support.merge_sink import PARTITIONS, Sink, opened_sink
from mastodon_assets_tests.support.records import (
    TOPIC,
    Record,
    delete,
    on_partition,
    staged,
    upsert,
)

_SCORED_SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "payload_hash": pa.int64(),
        "created_at": pa.timestamp("us", "UTC"),
        "lang": pa.string(),
        "text": pa.string(),
        "label_bin": pa.int16(),
        "prob_pos": pa.float64(),
        "label_str": pa.string(),
        "reason": pa.string(),
        "model_version": pa.string(),
    }
)
_SCORES: list[dict[str, Any]] = [
    {"label_bin": 1, "prob_pos": 0.9, "label_str": "positive", "model_version": "m1"},
    {"label_bin": 0, "prob_pos": 0.1 + 0.2, "label_str": "negative", "model_version": "m2"},
    {"reason": "no_words", "model_version": "m1"},
    {"reason": "no_model"},
]


def _topic(earliest: int = 0, end: int = 10**6, topic_id: str = "topic-id") -> TopicState:
    return TopicState(
        TOPIC,
        topic_id,
        dict.fromkeys(range(PARTITIONS), earliest),
        dict.fromkeys(range(PARTITIONS), end),
    )


@pytest.fixture(scope="module")
def opened(database_url: SecretStr) -> Iterator[Sink]:
    with opened_sink(database_url) as sink:
        yield sink


@pytest.fixture
def sink(opened: Sink) -> Sink:
    opened.empty()
    return opened


def test_a_post_is_one_row_with_its_event_time_and_windows(sink: Sink) -> None:
    assert sink.write(upsert("1")) == BatchCounts(stored=1)
    assert sink.rows("SELECT uri, lang, hashtags, content_txt, event_at FROM masto.toots_raw") == [
        (
            "https://one.example/users/ada/statuses/1",
            "en",
            ["news"],
            "hello",
            datetime(2026, 11, 20, 11, 59, tzinfo=UTC),
        )
    ]
    start, end = (
        datetime(2026, 11, 20, hour, minute, tzinfo=UTC) for hour, minute in ((11, 59), (12, 0))
    )
    assert sink.rows(
        "SELECT window_start, window_end, lang, toots_count, avg_length"
        " FROM masto.toot_metrics_windowed"
    ) == [(start, end, "en", 1, 5.0)]
    assert sink.rows(
        "SELECT window_start, window_end, username, toots_count, avg_length"
        " FROM masto.user_avg_length_windowed"
    ) == [(start, end, "ada@one.example", 1, 5.0)]


def test_the_same_post_from_two_servers_is_one_row_and_two_aliases(sink: Sink) -> None:
    uri = upsert("1")["uri"]
    counts = sink.write(upsert("1"), upsert("99", instance="two.example", uri=uri))
    assert counts == BatchCounts(stored=1, stale=1)
    assert len(sink.rows("SELECT * FROM masto.toots_raw")) == 1
    assert len(sink.rows("SELECT * FROM masto.toot_aliases")) == 2


def test_a_post_read_twice_changes_nothing(sink: Sink) -> None:
    sink.write(upsert("1"))
    before = sink.tables()
    version = sink.version()
    assert sink.write(upsert("1")) == BatchCounts(stale=1)
    assert sink.tables() == before
    assert sink.version() == version


def test_an_edit_before_its_post_stays(sink: Sink) -> None:
    edit = upsert("1", edited_at="2026-11-20T12:01:00Z", content="edited", language="de")
    sink.write(edit)
    assert sink.write(upsert("1")) == BatchCounts(stale=1)
    assert sink.rows("SELECT content_txt FROM masto.toots_raw") == [("edited",)]
    assert sink.rows("SELECT lang, toots_count FROM masto.toot_metrics_windowed") == [("de", 1)]


def test_an_edit_after_its_post_moves_the_windows(sink: Sink) -> None:
    sink.write(upsert("1"), upsert("2"))
    sink.write(
        upsert(
            "1",
            edited_at="2026-11-20T12:01:00Z",
            received_at="2026-11-20T12:01:01Z",
            content="ab",
            language="de",
        )
    )
    assert sorted(
        sink.rows("SELECT lang, toots_count, avg_length FROM masto.toot_metrics_windowed")
    ) == [("de", 1, 2.0), ("en", 1, 5.0)]
    assert sink.rows("SELECT toots_count, avg_length FROM masto.user_avg_length_windowed") == [
        (2, 3.5)
    ]


def test_an_edit_dated_in_the_future_does_not_win_for_ever(sink: Sink) -> None:
    sink.write(upsert("1", edited_at="2027-01-01T00:00:00Z", content="from the future"))
    later = upsert(
        "1",
        edited_at="2026-11-20T13:00:00Z",
        received_at="2026-11-20T13:00:01Z",
        content="corrected",
    )
    assert sink.write(later) == BatchCounts(stored=1)
    assert sink.rows("SELECT content_txt FROM masto.toots_raw") == [("corrected",)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("delete_first", [True, False])
def test_a_delete_removes_the_post_in_whatever_order_they_come(
    sink: Sink, delete_first: bool, together: bool
) -> None:
    messages = [delete("1"), upsert("1")] if delete_first else [upsert("1"), delete("1")]
    batches = [messages] if together else [[message] for message in messages]
    for batch in batches:
        sink.write(*batch)
    tables = sink.tables()
    assert len(tables.pop("toots_deleted")) == 1
    assert not any(tables.values())


def test_a_delete_on_one_server_keeps_the_post_out_from_every_server(sink: Sink) -> None:
    uri = upsert("1")["uri"]
    sink.write(upsert("1"), upsert("99", instance="two.example", uri=uri))
    sink.write(delete("99", instance="two.example"))
    assert sink.rows("SELECT * FROM masto.toots_raw") == []
    third = upsert("5", instance="three.example", uri=uri, edited_at="2026-11-21T00:00:00Z")
    assert sink.write(third) == BatchCounts(tombstoned=1)
    assert sink.rows("SELECT * FROM masto.toots_raw") == []


def test_a_post_of_the_future_counts_when_it_was_received(sink: Sink) -> None:
    sink.write(upsert("1", created_at="2026-11-20T16:00:00Z"))
    assert sink.rows("SELECT event_at, created_at FROM masto.toots_raw") == [
        (
            datetime(2026, 11, 20, 12, 2, tzinfo=UTC),
            datetime(2026, 11, 20, 16, 0, tzinfo=UTC),
        )
    ]


def test_a_post_18_hours_late_is_counted_in_its_own_window(sink: Sink) -> None:
    sink.write(upsert("1"))
    sink.write(upsert("2", created_at="2026-11-19T18:00:30Z"))
    assert sink.rows(
        "SELECT window_start, toots_count FROM masto.toot_metrics_windowed ORDER BY 1"
    ) == [
        (datetime(2026, 11, 19, 18, 0, tzinfo=UTC), 1),
        (datetime(2026, 11, 20, 11, 59, tzinfo=UTC), 1),
    ]


def test_a_bad_message_is_kept_byte_for_byte_with_its_place_and_reason(sink: Sink) -> None:
    counts = sink.write(b"garb\xffage", None, upsert("1"))
    assert counts == BatchCounts(stored=1, rejected=2)
    rows = sink.rows(
        "SELECT topic, partition, kafka_offset, reason, payload, message_key"
        " FROM masto.toots_rejected ORDER BY kafka_offset"
    )
    assert rows == [
        (TOPIC, 0, 0, "not UTF-8", b"garb\xffage", b"key"),
        (TOPIC, 0, 1, "no value", None, b"key"),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_two_uris_with_one_hash_never_share_a_row(sink: Sink, together: bool) -> None:
    one, other = uris_with_one_hash()
    messages = [upsert("1", uri=one), upsert("2", uri=other)]
    rows = staged(on_partition(messages))
    ids = rows.column("id").to_pylist()
    assert ids[0] == ids[1]
    records = on_partition(messages)
    if together:
        with pytest.raises(PayloadsNeededError):
            sink.write_records(records)
        counts = sink.write_records(records, keep_payloads=True)
        assert counts == BatchCounts(stored=1, rejected=1)
    else:
        sink.write_records(records[:1])
        sink.write_records(records[1:], keep_payloads=True)
    assert sink.rows("SELECT count(*) FROM masto.toots_raw") == [(1,)]
    ((reason, payload),) = sink.rows("SELECT reason, payload FROM masto.toots_rejected")
    assert reason == "uri: another post has this hash"
    assert payload in (records[0].value, records[1].value)


def _bad(status_id: str, instance: str = "one.example") -> dict[str, Any]:
    return upsert(status_id, instance=instance, favourites=-1, uri="https://one.example/1")


def _keyed(*messages: dict[str, Any], first: int) -> list[Record]:
    """Records with the keys that the ingester gives them."""
    return [
        Record(0, offset, orjson.dumps(each), message_key(each["instance"], each["id"]))
        for offset, each in enumerate(messages, start=first)
    ]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_a_delete_takes_the_rejected_messages_of_its_post_in_whatever_order_they_come(
    sink: Sink, together: bool, order: list[int]
) -> None:
    post = upsert("9", instance="two.example", uri="https://one.example/1")
    sink.write(upsert("1", uri="https://one.example/1"), post)
    messages = [_bad("1"), delete("1"), _bad("9", "two.example")]
    records = _keyed(*(messages[place] for place in order), _bad("7"), first=2)

    batches = [records] if together else [[record] for record in records]
    counts = [sink.write_records(batch) for batch in batches]

    assert sum((each.rejected for each in counts), 0) == 3
    assert sink.rows("SELECT message_key FROM masto.toots_rejected") == [(b"one.example/7",)]
    # Reading again keeps none of them, either.
    sink.next[0] = 0
    with sink.connection.transaction():
        sink.connection.execute("UPDATE masto.kafka_offsets SET next_offset = 2")
    sink.write_records(records)
    assert sink.rows("SELECT message_key FROM masto.toots_rejected") == [(b"one.example/7",)]


@pytest.mark.parametrize(
    "key", [b"\xff/1", b"one.example", b"one.example/\x00", b"x" * 9_000, None]
)
def test_a_rejected_message_with_a_key_of_another_form_is_kept(
    sink: Sink, key: bytes | None
) -> None:
    sink.write(delete("1"))
    assert sink.write_records([Record(0, 1, b"garbage", key)]) == BatchCounts(rejected=1)
    assert sink.rows("SELECT message_key FROM masto.toots_rejected") == [(key,)]


def test_a_status_id_that_a_server_gave_to_another_uri_is_rejected(sink: Sink) -> None:
    sink.write(upsert("1"))
    record = on_partition([upsert("1", uri="https://one.example/other")], 0, 1)
    assert sink.write_records(record, keep_payloads=True) == BatchCounts(rejected=1)
    assert sink.rows("SELECT count(*) FROM masto.toots_raw") == [(1,)]


def test_a_score_goes_with_the_text_it_was_made_from(sink: Sink) -> None:
    sink.write(upsert("1"), upsert("2"))
    with sink.connection.transaction():
        sink.connection.execute(
            "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, lang, reason, text)"
            " SELECT id, created_at, now(), lang, 'no_model', content_txt FROM masto.toots_raw"
        )
    seen_again = upsert("2", favourites=3, received_at="2026-11-20T11:59:30Z")
    edited = upsert("1", edited_at="2026-11-20T12:01:00Z", content="edited")
    assert sink.write(edited, seen_again) == BatchCounts(stored=2)
    assert sink.rows(
        "SELECT status_id FROM masto.toots_raw JOIN masto.toots_sentiment USING (id)"
    ) == [("2",)]


def test_an_edit_of_the_same_length_marks_its_day_as_changed(sink: Sink) -> None:
    sink.write(upsert("1"))
    sink.write(upsert("1", content="adieu", edited_at="2026-11-20T12:00:00.000Z"))
    assert sink.rows("SELECT toots_count, total_length, toots_version FROM masto.day_totals") == [
        (1, 5, sink.version())
    ]


def test_the_ledger_moves_with_the_rows_or_not_at_all(sink: Sink) -> None:
    sink.write(upsert("1"))
    rows = staged(on_partition([upsert("2")], 0, 1))
    with sink.connection.transaction(force_rollback=True):
        write_batch(sink.connection, rows, {TOPIC: "topic-id"})
    assert sink.rows("SELECT status_id FROM masto.toots_raw") == [("1",)]
    with sink.connection.transaction():
        assert read_ledger(sink.connection, TOPIC)[0] == 1


def test_a_batch_that_does_not_begin_at_the_ledger_is_refused(sink: Sink) -> None:
    sink.write(upsert("1"))
    before = sink.tables()
    for first in (0, 2):
        with pytest.raises(LedgerConflictError, match="the ledger is at 1"):
            sink.write_records(on_partition([upsert("2")], 0, first))
    assert sink.tables() == before


def test_a_batch_with_a_hole_is_refused(sink: Sink) -> None:
    records = on_partition([upsert("1"), upsert("2"), upsert("3")])
    with pytest.raises(BatchAccountError, match="2 records between offsets 0 and 3"):
        sink.write_records([records[0], records[2]])
    assert sink.rows("SELECT * FROM masto.toots_raw") == []


def test_a_batch_of_another_topic_of_the_same_name_is_refused(sink: Sink) -> None:
    with pytest.raises(LedgerConflictError), sink.connection.transaction():
        write_batch(sink.connection, staged(on_partition([upsert("1")])), {TOPIC: "another"})


def test_a_partition_added_while_reading_begins_at_zero(sink: Sink) -> None:
    with sink.connection.transaction():
        advance_ledger(sink.connection, TOPIC, "topic-id", 7, start=0, end=3)
        assert read_ledger(sink.connection, TOPIC)[7] == 3
    with sink.connection.transaction(), pytest.raises(LedgerConflictError):
        advance_ledger(sink.connection, TOPIC, "topic-id", 8, start=2, end=3)
    with sink.connection.transaction():
        sink.connection.execute("DELETE FROM masto.kafka_offsets WHERE partition = 7")


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (_topic(topic_id="another"), r"expected offset 2, but the topic was created again"),
        (_topic(earliest=5), r"mastodon_stream\[0\]: expected offset 2, but retention.* 5 to"),
        (_topic(end=1), r"expected offset 2, but the topic ends before it, found 0 to 1"),
    ],
)
def test_lost_messages_are_an_error_until_the_loss_is_accepted(
    sink: Sink, state: TopicState, problem: str
) -> None:
    sink.write(b"garbage", upsert("1"))
    with pytest.raises(DataLossError, match=problem), sink.connection.transaction():
        open_ledger(sink.connection, state, accept_data_loss=False)
    with sink.connection.transaction():
        ledger = open_ledger(sink.connection, state, accept_data_loss=True)
        assert ledger[0] == state.earliest[0]
        open_ledger(sink.connection, state, accept_data_loss=False)
    ((topic,),) = sink.rows("SELECT topic FROM masto.toots_rejected")
    is_same_topic = state.topic_id == "topic-id"
    assert topic == (TOPIC if is_same_topic else f"{TOPIC}@topic-id")
    with sink.connection.transaction():
        sink.connection.execute("UPDATE masto.kafka_offsets SET topic_id = 'topic-id'")


def test_a_loss_is_accepted_once_if_the_topic_has_fewer_partitions_now(sink: Sink) -> None:
    sink.write(b"garbage", upsert("1"))
    smaller = TopicState(TOPIC, "another", earliest={0: 0}, end={0: 5})
    with sink.connection.transaction():
        assert open_ledger(sink.connection, smaller, accept_data_loss=True) == {0: 0}
        assert open_ledger(sink.connection, smaller, accept_data_loss=False) == {0: 0}
    assert sink.rows("SELECT topic FROM masto.toots_rejected") == [(f"{TOPIC}@topic-id",)]
    with sink.connection.transaction():
        open_ledger(sink.connection, _topic(), accept_data_loss=True)


def test_lag_counts_partitions_that_the_ledger_does_not_know() -> None:
    assert lag({0: 5}, {0: 7, 1: 3}) == 5
    assert lag({0: 5}, {0: 5}) == 0
    assert lag({}, {}) == 0


_WITHIN_A_SECOND = [f"2026-11-20T12:30:00.{part}00Z" for part in (3, 9)]
_DAY = [f"2026-11-20T{hour:02d}:{minute:02d}:00Z" for hour in (11, 12) for minute in (0, 30)]


@st.composite
def _messages(draw: st.DrawFn) -> list[Any]:
    posts = st.sampled_from(["1", "2", "3"])
    servers = st.sampled_from(["one.example", "two.example", "three.example", "unknown"])
    made = []
    for _ in range(draw(st.integers(1, 12))):
        post, server = draw(posts), draw(servers)
        status_id = post if server == "one.example" else f"{server}-{post}"
        if draw(st.integers(0, 4)) == 0:
            received_at = draw(st.sampled_from(_DAY))
            made.append(delete(status_id, instance=server, received_at=received_at))
            continue
        made.append(
            upsert(
                status_id,
                instance=server,
                uri=f"https://one.example/{post}",
                created_at=draw(st.sampled_from(_DAY)),
                edited_at=draw(st.none() | st.sampled_from([*_DAY, *_WITHIN_A_SECOND])),
                received_at=draw(st.sampled_from(_DAY)),
                content=draw(st.sampled_from(["a", "bb", "ccc"])),
                language=draw(st.sampled_from(["en", "de"])),
                hashtags=draw(st.sampled_from([[], ["tea"], ["tea", "rum"]])),
                username=draw(st.sampled_from(["ada@one.example", "bob@one.example"])),
                origin=draw(st.sampled_from(["stream", "backfill", "import"])),
            )
        )
    return made


_sources = st.sets(st.sampled_from(["one.example", "two.example", "three.example"]))


def _expected_rows(messages: list[Any], sources: set[str]) -> set[tuple[str, str]]:
    """Uri and time of receipt of the versions that stay, by the rules alone."""
    is_home_read = "one.example" in sources and len(sources) > 1
    expected = set()
    for post in "123":
        versions = [each for each in messages if each.get("uri", "").endswith(f"/{post}")]
        if not versions:
            continue
        known = {(each["instance"], each["id"]) for each in versions}
        if is_home_read:
            known.add(("one.example", post))
        deletes = [
            each
            for each in messages
            if each["op"] == "delete" and (each["instance"], each["id"]) in known
        ]
        if not deletes:
            latest = max(versions, key=_order)
        elif not is_home_read or any(each["instance"] == "one.example" for each in deletes):
            continue
        else:
            deleted_at = max(each["received_at"] for each in deletes)
            shown = [
                each
                for each in versions
                if each["instance"] == "one.example"
                and each["origin"] != "import"
                and each["received_at"] > deleted_at
            ]
            if not shown:
                continue
            latest = max(shown, key=lambda each: each["received_at"])
        expected.add((latest["uri"], latest["received_at"]))
    return expected


def _order(version: Any) -> tuple[Any, ...]:
    received = datetime.fromisoformat(version["received_at"])
    edited_at = datetime.min.replace(tzinfo=UTC)
    if version["edited_at"]:
        limit = received + timedelta(minutes=2)
        edited_at = min(datetime.fromisoformat(version["edited_at"]), limit)
    is_home = version["instance"] == "one.example"
    return edited_at.replace(microsecond=0), is_home, edited_at, -received.timestamp()


def _rows_by_rule_14(sink: Sink) -> set[tuple[str, str]]:
    found = sink.rows("SELECT uri, received_at FROM masto.toots_raw")
    return {(uri, f"{received_at:%Y-%m-%dT%H:%M:%SZ}") for uri, received_at in found}


def _score_some(sink: Sink, generator: random.Random) -> None:
    """Give some of the toots a label, or the reason for none."""
    with sink.connection.transaction():
        ids = sink.connection.execute("SELECT id FROM masto.toots_raw").fetchall()
        toots = read_posts(sink.connection, [id_ for (id_,) in ids]).to_pylist()
        scores = [
            toot | generator.choice(_SCORES)
            for toot in generator.sample(toots, generator.randint(0, len(toots)))
        ]
        take_write_lock(sink.connection)
        if scores:
            merge_scores(sink.connection, pa.Table.from_pylist(scores, _SCORED_SCHEMA))


def _spread(sink: Sink, messages: list[Any], generator: random.Random) -> None:
    """Write the messages in a random order, on random partitions, in random batches.

    In between some toots are scored.
    """
    shuffled = generator.sample(messages, len(messages))
    while shuffled:
        size = generator.randint(1, len(shuffled))
        batch, shuffled = shuffled[:size], shuffled[size:]
        by_partition: dict[int, list[Any]] = {}
        for message in batch:
            by_partition.setdefault(generator.randrange(PARTITIONS), []).append(message)
        sink.write_records(
            [
                record
                for partition, some in by_partition.items()
                for record in on_partition(some, partition, sink.next[partition])
            ]
        )
        _score_some(sink, generator)


@hypothesis_settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(messages=_messages(), sources=_sources, generator=st.randoms())
def test_order_partitions_and_batches_change_no_row(
    sink: Sink, messages: list[Any], sources: set[str], generator: random.Random
) -> None:
    names = {name: name for name in sources}
    sink.empty()
    sink.read(names)
    _spread(sink, messages, generator)
    first = sink.tables()
    assert _rows_by_rule_14(sink) == _expected_rows(messages, sources)
    # Once more over the same tables: reading again changes nothing.
    _spread(sink, messages, generator)
    assert sink.tables() == first
    sink.empty()
    sink.read(names)
    _spread(sink, messages, generator)
    assert sink.tables() == first
    with sink.connection.transaction():
        in_windows, rows = window_sum_and_rows(sink.connection)
        assert in_windows == rows == len(first["toots_raw"])
        assert days_that_differ(sink.connection, None) == []
        assert days_that_differ(sink.connection, [date(2026, 11, 20)]) == []
    for name in ("toot_metrics_windowed", "user_avg_length_windowed"):
        assert rebuild_windows(sink.connection, TABLES[name]) == 0
    assert rebuild_rollups(sink.connection) == 0


@hypothesis_settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(messages=_messages(), generator=st.randoms())
def test_hourly_tables_have_after_each_refresh_what_is_counted_from_all_rows(
    sink: Sink, messages: list[Any], generator: random.Random
) -> None:
    sink.empty()
    for _ in range(2):
        _spread(sink, messages, generator)
        assert refresh_hours(sink.connection).is_complete
        assert sink.rows("TABLE masto.changed_hours") == []
        expected = hourly_rows(sink)
        for rows in (expected, daily_rows(sink)):
            assert {name: stored_rows(sink, name) for name in rows} == rows
    assert hours_that_differ(sink.connection, all_hours_of(sink)) == {}
    for name in expected:
        assert rebuild_hourly(sink.connection, TABLES[name]) == 0


@pytest.mark.parametrize("home", ["pages.one.example", "one.example"])
def test_within_a_second_the_version_from_home_is_the_row(sink: Sink, home: str) -> None:
    """Servers abroad cut times to the second, so they cannot say which of two edits was later."""
    uri = "https://pages.one.example/users/ada/1"

    def version(instance: str, edited_at: str | None, content: str, second: int) -> Any:
        return upsert(
            f"{instance}-1",
            instance=instance,
            uri=uri,
            username="ada@one.example",
            edited_at=edited_at,
            content=content,
            received_at=f"2026-11-20T12:00:{second:02d}Z",
        )

    edits = [
        version("unknown", None, "imported", 1),
        version("two.example", "2026-11-20T11:59:30Z", "first, abroad", 2),
        version(home, "2026-11-20T11:59:30.300Z", "first", 4),
        version(home, "2026-11-20T11:59:30.900Z", "second", 3),
        version("two.example", "2026-11-20T11:59:30Z", "second, abroad", 1),
    ]
    for order in permutations(edits[1:]):
        sink.empty()
        for message in order:
            sink.write(message)
        assert sink.rows("SELECT content_txt FROM masto.toots_raw") == [("second",)]

    for order in permutations([edits[0], version(home, None, "by its server", 9)]):
        sink.empty()
        for message in order:
            sink.write(message)
        assert sink.rows("SELECT content_txt FROM masto.toots_raw") == [("by its server",)]
    # An edit of a later second wins wherever it comes from.
    sink.write(version("two.example", "2026-11-20T11:59:31Z", "third, abroad", 20))
    assert sink.rows("SELECT content_txt FROM masto.toots_raw") == [("third, abroad",)]


def test_labels_a_day_are_rebuilt_from_the_rows(sink: Sink) -> None:
    sink.write(upsert("1"), upsert("2"), upsert("3", created_at="2026-11-19T10:00:00Z"))
    with sink.connection.transaction():
        sink.connection.execute(
            "UPDATE masto.sentiment_totals SET toots_count = 9 WHERE day < %s",
            (date(2026, 11, 20),),
        )
        assert days_that_differ(sink.connection, None) == [date(2026, 11, 19)]
        assert days_that_differ(sink.connection, [date(2026, 11, 20)]) == []
    assert rebuild_rollups(sink.connection) == 1
    assert sink.rows(
        "SELECT day, n_toosts, n_unscored FROM masto.v_sentiment_daily ORDER BY 1"
    ) == [
        (date(2026, 11, 19), 1, 1),
        (date(2026, 11, 20), 2, 2),
    ]


def test_windows_are_rebuilt_from_the_rows(sink: Sink) -> None:
    sink.write(upsert("1"), upsert("2", language="de"))
    expected = sink.tables()
    with sink.connection.transaction():
        sink.connection.execute("UPDATE masto.toot_metrics_windowed SET toots_count = 9")
        sink.connection.execute("DELETE FROM masto.user_avg_length_windowed")
        sink.connection.execute(
            "INSERT INTO masto.toot_metrics_windowed SELECT now(), now(), 1, 1, 'xx'"
        )
    metrics = rebuild_windows(sink.connection, TABLES["toot_metrics_windowed"])
    users = rebuild_windows(sink.connection, TABLES["user_avg_length_windowed"])
    assert (metrics, users) == (3, 1)
    assert sink.tables() == expected
