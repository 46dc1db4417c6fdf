"""Recorded statuses from a file into Kafka and the tables."""

import gzip
import io
import json
from typing import Any

import pytest

from mastodon_assets.ingest import importer
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.importer import RecordingUnreadableError, import_statuses
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.mock_broker import ERRORS, Broker
from mastodon_assets_tests.support.records import TOPIC, on_partition, staged


@pytest.fixture(autouse=True)
def _nobody_has_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "watched_suppression_list", lambda _settings: SuppressionList)


def as_line(document: Any) -> bytes:
    return json.dumps(document).encode()


def bring_in(broker: Broker, content: bytes, instance: str = "one.example") -> IngestSummary:
    return import_statuses(broker.settings(), io.BytesIO(content), instance=instance)


def ids(broker: Broker) -> list[str]:
    return sorted(message["id"] for message in broker.messages())


def test_each_line_is_a_message_of_the_server_named(broker: Broker) -> None:
    summary = bring_in(broker, as_line(status("1")) + b"\n" + as_line(status("2")) + b"\n")

    assert (summary.received, summary.upserts) == (2, 2)
    assert ids(broker) == ["1", "2"]
    messages = broker.messages()
    assert {(message["instance"], message["origin"]) for message in messages} == {
        ("one.example", "backfill")
    }


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + as_line(status("1")),
        b"\n\n  \n" + as_line(status("1")) + b"\r\n\r\n",
        gzip.compress(as_line(status("1")) + b"\n"),
        as_line(status("1", content="<p>" + "long " * 40_000 + "</p>")) + b"\n",
    ],
    ids=["byte order mark", "blank lines and CRLF", "gzipped", "a long line without an end"],
)
def test_a_file_may_be_written_in_many_ways(broker: Broker, content: bytes) -> None:
    summary = bring_in(broker, content)

    assert (summary.received, summary.errors.total()) == (1, 0)
    assert ids(broker) == ["1"]


def test_an_empty_file_brings_nothing(broker: Broker) -> None:
    assert bring_in(broker, b"").received == 0
    assert bring_in(broker, gzip.compress(b"")).received == 0


def test_lines_that_are_no_status_are_dead_letters_and_the_others_arrive(broker: Broker) -> None:
    bad = [b"{", b"null", b'["a"]', b'{"id": NaN}', as_line(status("2"))[:-1] + b',"x":"\xff"}']
    bad += [b"[" * 100_000, as_line(status("3", created_at="yesterday"))]
    summary = bring_in(broker, b"\n".join([*bad, as_line(status("1"))]))

    assert summary.received == len(bad) + 1
    assert ids(broker) == ["1"]
    refused = summary.errors.total() + summary.withheld["unreadable"]
    assert refused == len(bad)
    assert len(broker.messages(ERRORS)) == len(bad)


def test_a_line_longer_than_any_post_is_a_dead_letter(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "_LONGEST_LINE", 2_000)
    long = as_line(status("1", content="x" * 9_000))
    summary = bring_in(broker, b"\n".join([long, as_line(status("2"))]))

    assert summary.errors == {"not_json": 1}
    assert ids(broker) == ["2"]


def test_consent_is_that_of_live_posts(broker: Broker) -> None:
    kinds = [status("1", visibility="unlisted"), status("2", account=account(note="<p>#nobot</p>"))]
    summary = bring_in(broker, b"\n".join(as_line(each) for each in kinds))

    assert summary.withheld == {"not_public": 1, "nobot": 1}
    assert broker.messages() == []
    assert broker.messages(ERRORS) == []


def test_a_damaged_archive_is_one_line_and_what_came_before_is_published(broker: Broker) -> None:
    lines = b"\n".join(as_line(status(str(number))) for number in range(3_000))
    archive = gzip.compress(lines)

    with pytest.raises(RecordingUnreadableError, match="is damaged after") as told:
        bring_in(broker, archive[: len(archive) // 2])

    assert "\n" not in str(told.value)
    assert f"after {len(broker.messages())} statuses" in str(told.value)
    assert len(broker.messages()) > 0


def test_importing_twice_changes_no_row(broker: Broker, fresh_database_url: Any) -> None:
    content = b"\n".join(
        as_line(status(str(number), edited_at=edited))
        for number, edited in enumerate([None, "2026-11-20T12:30:00.000Z", None])
    )
    tables, known = [], 0
    with connect(fresh_database_url) as connection:
        prepare_session(connection)
        connection.commit()
        for _ in range(2):
            bring_in(broker, content)
            # By receipt, because the topic's partitions are read one after the other.
            messages = sorted(broker.messages(), key=lambda each: each["received_at"])
            records = on_partition(messages[known:], first=known)
            with connection.transaction():
                counts = write_batch(connection, staged(records), {TOPIC: "topic-id"})
                tables.append(
                    connection.execute("SELECT * FROM masto.toots_raw ORDER BY id").fetchall()
                )
            known = len(messages)

    assert counts.stale == 3
    assert len(tables[0]) == 3
    assert tables[0] == tables[1]


def test_every_line_of_a_recording_is_accounted_for(
    broker: Broker, recorded_statuses: list[dict[str, Any]]
) -> None:
    summary = bring_in(broker, b"\n".join(as_line(each) for each in recorded_statuses), "unknown")

    assert summary.received == len(recorded_statuses)
    counted = summary.upserts + summary.duplicates + summary.withheld.total()
    assert counted + summary.errors.total() == len(recorded_statuses)
    assert len(broker.messages()) == summary.upserts
