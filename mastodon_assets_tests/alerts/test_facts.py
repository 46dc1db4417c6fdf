"""What counts as a problem: of sources, tables, Kafka and the disk."""

from datetime import UTC, datetime, timedelta

import pytest

from mastodon_assets.alerts.facts import (
    TableFacts,
    judge_source,
    judge_stream,
    judge_tables,
    read_facts,
)
from mastodon_assets.alerts.incidents import KINDS
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.ingest.source_states import SourceStatus
from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.warehouse.database import connect
from mastodon_assets_tests.support.ports import free_port

_NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_TABLES = TableFacts(gaps=[], ledger={0: 10}, written_at=_NOW, rejected=0, read=1000)


def _source(state: str, told_at: datetime = _NOW, suspicious: str | None = None) -> SourceStatus:
    return SourceStatus(
        "one.example", "public", state, "<b>said by the server</b>", told_at, None, None, None, 0,
        suspicious,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        (_source("connected"), []),
        (_source("stopped", _NOW - timedelta(days=9)), []),
        (_source("silent"), ["source_silent"]),
        (_source("disconnected"), ["source_disconnected"]),
        (_source("paused"), ["source_paused"]),
        (_source("refused", suspicious="many"), ["token_refused", "removals_wait"]),
        (_source("connected", _NOW - timedelta(hours=1)), ["source_gone"]),
    ],
)
def test_a_sources_state_is_a_problem_unless_it_works_or_was_stopped(
    source: SourceStatus, kinds: list[str]
) -> None:
    problems = list(judge_source(source, _NOW))
    assert [each.kind for each in problems] == kinds
    assert KINDS.keys() >= set(kinds)
    assert "said" not in str(problems)


def test_old_gaps_and_a_large_share_of_rejects_are_problems() -> None:
    settings = load_settings()
    assert list(judge_tables(settings, _TABLES)) == []
    few = TableFacts([], {}, None, rejected=19, read=19)
    assert list(judge_tables(settings, few)) == []
    many = TableFacts([("one.example", "public", 2, _NOW)], {}, None, rejected=100, read=1000)
    assert [each.what for each in judge_tables(settings, many)] == [
        "one.example/public: 2 gaps are still open, the oldest since 2026-11-20 12:00 UTC",
        "10% of the messages of the last hour were rejected; see: mastodon-assets rejected list",
    ]


@pytest.mark.parametrize(
    ("end", "written_at", "kinds"),
    [
        (10, _NOW - timedelta(days=1), []),
        (11, _NOW - 9 * _MINUTE, []),
        (11, _NOW - 11 * _MINUTE, ["stream_stalled"]),
        (11, None, ["stream_stalled"]),
        (200_011, _NOW, ["stream_behind"]),
    ],
)
def test_a_large_lag_and_a_lag_that_nothing_reduces_are_problems(
    end: int, written_at: datetime | None, kinds: list[str]
) -> None:
    tables = TableFacts([], {0: 10}, written_at, 0, 0)
    topic = TopicState("topic", "id", {0: 0}, {0: end})
    found = judge_stream(load_settings(), tables, topic, _NOW)
    assert [each.kind for each in found] == kinds


def test_rejects_of_an_imported_history_are_a_share_of_all_that_was_read(
    settings: Settings,
) -> None:
    now = datetime.now(UTC)
    with connect(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.kafka_offsets (topic, topic_id, partition, next_offset)"
            " VALUES (%s, 'id', 0, 10000)",
            (settings.kafka_topic,),
        )
        connection.execute(
            "INSERT INTO masto.toots_rejected (topic, partition, kafka_offset, reason)"
            " SELECT %s, 0, n, 'broken' FROM generate_series(100, 199) n",
            (settings.kafka_topic,),
        )
    assert "rejects" not in {each.kind for each in read_facts(settings, now).problems}


def test_facts_are_read_from_the_tables_the_broker_and_the_disk(settings: Settings) -> None:
    now = datetime.now(UTC)
    assert read_facts(settings, now).problems == ()
    with connect(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.ingest_sources (instance, source, state)"
            " VALUES ('one.example', 'public', 'refused')"
        )
        connection.execute(
            "INSERT INTO masto.stream_gaps"
            " (instance, source, started_at, reason, recovered_count, status)"
            " VALUES ('one.example', 'public', now() - interval '1 hour', '', 0, 'open')"
        )
        connection.execute(
            "INSERT INTO masto.toots_rejected (topic, partition, kafka_offset, reason)"
            " SELECT 'topic', 0, n, 'broken' FROM generate_series(1, 20) n"
        )
    full = settings.model_copy(update={"alert_disk_gib": 1e9})
    kinds = [each.kind for each in read_facts(full, now).problems]
    assert kinds == ["token_refused", "gap_open", "rejects", "disk_low"]
    away = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    reading = read_facts(away, now)
    assert "kafka_down" in {each.kind for each in reading.problems}
    assert reading.unread == {"stream_behind", "stream_stalled"}
    missing = read_facts(settings.model_copy(update={"kafka_topic": "missing"}), now)
    assert "kafka_down" not in {each.kind for each in missing.problems}
    assert missing.unread == {"stream_behind", "stream_stalled"}
