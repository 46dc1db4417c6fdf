"""What is wrong with sources, Kafka, tables and disk.

What belongs here: reading and judging these facts. What Dagster knows is read in
`orchestration.alert_facts`. Texts have names of sources and numbers only: what servers and posts
say must not get into messages.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg import Connection

from mastodon_assets.alerts.incidents import Problem, Reading
from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.source_states import SourceStatus, read_sources
from mastodon_assets.kafka.topics import TopicMissingError, TopicState, read_topic
from mastodon_assets.stream.ledger import lag, read_ledger
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction

_BROKER_TIMEOUT_SECONDS = 3
_GIBIBYTE = 2**30
# A few broken messages in a quiet hour are a large share, but no incident.
_LEAST_REJECTS = 20
_STREAM_KINDS = frozenset({"stream_behind", "stream_stalled"})
_STATES = {
    "silent": ("source_silent", "the stream is open, but sends no posts"),
    "disconnected": ("source_disconnected", "there is no connection to the server"),
    "paused": ("source_paused", "the ingester waits for Kafka"),
    "refused": ("token_refused", "the server refuses the token"),
    "not running": ("source_gone", "the ingester was killed, or its machine is down"),
}


@dataclass(frozen=True)
class TableFacts:
    """What the tables know.

    Attributes:
        gaps: Server, source, number of old open gaps, and start of the oldest.
        ledger: Next offset to read by partition.
        written_at: When the ledger moved last; None before the first time.
        rejected: Dead letters of the last hour.
        read: Messages that were read from the first of these on, at least the posts of the last
            hour. An imported history has only posts of earlier hours.
    """

    gaps: Sequence[tuple[str, str, int, datetime]]
    ledger: dict[int, int]
    written_at: datetime | None
    rejected: int
    read: int


def read_facts(settings: Settings, now: datetime) -> Reading:
    """Look at sources, Kafka, tables and disk.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(
        settings.postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
    ) as connection:
        tables = _read_tables(connection, settings, now)
    problems = [
        *(
            problem
            for source in read_sources(settings.postgres_url)
            for problem in judge_source(source, now)
        ),
        *judge_tables(settings, tables),
        *_judge_disk(settings),
    ]
    return Reading(tuple(problems)) + _read_stream(settings, tables, now)


def judge_source(source: SourceStatus, now: datetime) -> Iterator[Problem]:
    """Yield what is wrong with a source."""
    name = f"{source.instance}/{source.source}"
    state = source.present_state(now)
    if state in _STATES:
        kind, sentence = _STATES[state]
        yield Problem(f"{kind} {name}", kind, f"{name}: {sentence}")
    if source.suspicious:
        yield Problem(
            f"removals_wait {source.instance}",
            "removals_wait",
            f"{source.instance}: many posts seem to be gone at once; their removal waits for:"
            f" mastodon-assets sources accept {source.instance}",
        )


def judge_tables(settings: Settings, tables: TableFacts) -> Iterator[Problem]:
    """Yield old gaps, and a large share of rejected messages."""
    for instance, source, count, oldest in tables.gaps:
        name = f"{instance}/{source}"
        yield Problem(
            f"gap_open {name}",
            "gap_open",
            f"{name}: {count} gap{'s are' if count > 1 else ' is'} still open, the oldest since"
            f" {oldest:%Y-%m-%d %H:%M} UTC",
        )
    share = tables.rejected / max(tables.rejected, tables.read, 1)
    if tables.rejected >= _LEAST_REJECTS and share > settings.alert_reject_share:
        yield Problem(
            "rejects",
            "rejects",
            f"{share:.0%} of the messages of the last hour were rejected; see: mastodon-assets"
            " rejected list",
        )


def judge_stream(
    settings: Settings, tables: TableFacts, topic: TopicState, now: datetime
) -> Iterator[Problem]:
    """Yield a large lag, and a lag that nothing reduces."""
    behind = lag(tables.ledger, topic.end)
    if behind > settings.alert_lag_messages:
        yield Problem(
            "stream_behind", "stream_behind", f"the tables are {behind:,} messages behind Kafka"
        )
    stall = timedelta(minutes=settings.alert_stall_minutes)
    if behind and (tables.written_at is None or now - tables.written_at > stall):
        yield Problem(
            "stream_stalled",
            "stream_stalled",
            f"the tables are {behind:,} messages behind Kafka, and nothing was written for"
            f" {settings.alert_stall_minutes} minutes",
        )


def _read_stream(settings: Settings, tables: TableFacts, now: datetime) -> Reading:
    try:
        topic = read_topic(settings, settings.kafka_topic, timeout=_BROKER_TIMEOUT_SECONDS)
    except TopicMissingError:
        return Reading(unread=_STREAM_KINDS)
    except PlatformError:
        return Reading(
            (Problem("kafka_down", "kafka_down", "Kafka does not answer"),), _STREAM_KINDS
        )
    return Reading(tuple(judge_stream(settings, tables, topic, now)))


def _judge_disk(settings: Settings) -> Iterator[Problem]:
    home = settings.mastodon_assets_home.absolute()
    free = free_bytes(home)
    if free < settings.alert_disk_gib * _GIBIBYTE:
        text = f"{free / _GIBIBYTE:.1f} GiB are free on the disk of the state folder"
        yield Problem("disk_low", "disk_low", text)


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder, which need not exist yet."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def _read_tables(connection: Connection[Any], settings: Settings, now: datetime) -> TableFacts:
    gaps = connection.execute(
        """
        SELECT instance, source, count(*), min(started_at) FROM masto.stream_gaps
         WHERE status = 'open' AND started_at < %s
         GROUP BY instance, source
        """,
        (now - timedelta(minutes=settings.alert_gap_minutes),),
    ).fetchall()
    hour = {"since": now - timedelta(hours=1), "topic": settings.kafka_topic}
    row = connection.execute(
        """
        WITH rejected AS (
            SELECT topic, partition, count(*) AS number, min(kafka_offset) AS first_offset
              FROM masto.toots_rejected WHERE rejected_at > %(since)s GROUP BY topic, partition
        ),
        posts AS (
            SELECT coalesce(sum(toots_count), 0)::bigint AS number
              FROM masto.toot_metrics_windowed WHERE window_start > %(since)s
        )
        SELECT (SELECT max(updated_at) FROM masto.kafka_offsets WHERE topic = %(topic)s),
               rejected.number,
               greatest(rejected.number + posts.number, rejected.read)
          FROM posts,
               (SELECT coalesce(sum(number), 0)::bigint AS number,
                       coalesce(sum(next_offset - first_offset), 0)::bigint AS read
                  FROM rejected LEFT JOIN masto.kafka_offsets USING (topic, partition)) rejected
        """,
        hour,
    ).fetchone()
    assert row is not None
    return TableFacts(gaps, read_ledger(connection, settings.kafka_topic), *row)
