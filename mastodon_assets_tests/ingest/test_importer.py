"""Recorded statuses from a file into Kafka and the tables."""

import codecs
import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pytest

from mastodon_assets.contract import recordings
from mastodon_assets.contract.recordings import RecordingError
from mastodon_assets.ingest import importer
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.importer import RecordingUnreadableError, import_statuses
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.mock_broker import ERRORS, Broker
from mastodon_assets_tests.support.records import TOPIC, on_partition, staged


class _NobodyRefuses(Homes):
    """What is known of homes, without a database."""

    def load(self) -> None:
        """Read nothing."""

    def refuses(self, _handle: str) -> bool:
        return False


@pytest.fixture(autouse=True)
def _nobody_has_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "watched_suppression_list", lambda _settings: SuppressionList)
    monkeypatch.setattr(importer, "Homes", _NobodyRefuses)


def as_line(document: Any) -> bytes:
    return json.dumps(document).encode()


def bring_in(broker: Broker, content: bytes, instance: str = "one.example") -> IngestSummary:
    return import_statuses(broker.settings(), io.BytesIO(content), instance=instance)


def ids(broker: Broker) -> list[str]:
    return sorted(message["id"] for message in broker.messages())


_STATUS = as_line(status("1"))
_BARE = {name: value for name, value in status("1").items() if name != "account"}
_ARCHIVE = {"account": account(), "statuses": [_BARE], "favourites": [status("2")]}
_ENVELOPE = {"_mastopy_version": "2.1.4", "_mastopy_type": "Status", "_mastopy_data": status("1")}
_FORMS = {
    "zstd": pa.compress(_STATUS, codec="zstd", asbytes=True),
    "UTF-16 with a mark": codecs.BOM_UTF16_LE + _STATUS.decode().encode("utf-16-le"),
    "UTF-16 without a mark": _STATUS.decode().encode("utf-16-be"),
    "an array": b"[" + _STATUS + b"]",
    "an array over several lines": json.dumps([status("1")], indent=1).encode(),
    "one status over several lines": json.dumps(status("1"), indent=1).encode(),
    "mastodon-archive": as_line(_ARCHIVE),
    "mastodon-archive over several lines": json.dumps(_ARCHIVE, indent=1).encode(),
    "Mastodon.py": as_line(_ENVELOPE),
    "a list of Mastodon.py": as_line({**_ENVELOPE, "_mastopy_data": [_ENVELOPE]}),
    "an id that is a number": as_line(status(1)),
    "gzipped UTF-16": gzip.compress(_STATUS.decode().encode("utf-16")),
}


def test_each_line_is_a_message_of_the_server_named(broker: Broker) -> None:
    summary = bring_in(broker, as_line(status("1")) + b"\n" + as_line(status("2")) + b"\n")

    assert (summary.received, summary.upserts) == (2, 2)
    assert ids(broker) == ["1", "2"]
    messages = broker.messages()
    assert {(message["instance"], message["origin"]) for message in messages} == {
        ("one.example", "import")
    }


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + as_line(status("1")),
        b"\n\n  \n" + as_line(status("1")) + b"\r\n\r\n",
        gzip.compress(as_line(status("1")) + b"\n"),
        as_line(status("1", content="<p>" + "long " * 40_000 + "</p>")) + b"\n",
        *_FORMS.values(),
    ],
    ids=[
        "byte order mark",
        "blank lines and CRLF",
        "gzipped",
        "a long line without an end",
        *_FORMS,
    ],
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
    monkeypatch.setattr(recordings, "MAX_STATUS_BYTES", 2_000)
    long = as_line(status("1", content="x" * 9_000))
    summary = bring_in(broker, b"\n".join([long, as_line(status("2"))]))

    assert summary.errors == {"not_json": 1}
    assert ids(broker) == ["2"]


def test_an_array_larger_than_a_chunk_is_read_to_its_end(broker: Broker) -> None:
    statuses = [status(str(number), content="é" * 3_000) for number in range(60)]
    summary = bring_in(broker, json.dumps(statuses, ensure_ascii=False, indent=2).encode())

    assert (summary.received, summary.upserts) == (60, 60)


def test_a_damaged_array_is_one_line_and_what_came_before_is_published(broker: Broker) -> None:
    array = json.dumps([status("1"), status("2")])

    with pytest.raises(RecordingUnreadableError, match="is damaged after 1 statuses"):
        bring_in(broker, array[:-40].encode())
    assert ids(broker) == ["1"]


def test_an_array_with_an_entry_nested_too_deeply_is_damaged(broker: Broker) -> None:
    deep = "[" * 100_000

    with pytest.raises(RecordingUnreadableError, match="is damaged after 1 statuses"):
        bring_in(broker, f"[{json.dumps(status('1'))}, {deep}".encode())
    assert ids(broker) == ["1"]


def test_mastodons_export_is_named_with_what_to_do(broker: Broker) -> None:
    outbox = {"type": "OrderedCollection", "orderedItems": [{"type": "Create", "object": {}}]}

    with pytest.raises(RecordingError, match=r"is outbox\.json .* mastodon-archive"):
        bring_in(broker, as_line(outbox))


@pytest.mark.parametrize("content", [b"text\ntext", b"[1, 2]", b'{"a": 1}', b"7"])
def test_a_file_without_a_readable_status_is_an_error(broker: Broker, content: bytes) -> None:
    with pytest.raises(RecordingError, match="could be read as a status"):
        bring_in(broker, content)


def test_consent_is_that_of_live_posts(broker: Broker) -> None:
    kinds = [status("1", visibility="unlisted"), status("2", account=account(note="<p>#nobot</p>"))]
    summary = bring_in(broker, b"\n".join(as_line(each) for each in kinds))

    assert summary.withheld == {"not_public": 1, "nobot": 1}
    assert broker.messages() == []
    assert broker.messages(ERRORS) == []


def test_a_damaged_archive_is_one_line_and_what_came_before_is_published(broker: Broker) -> None:
    lines = b"\n".join(as_line(status(str(number))) for number in range(3_000))
    archive = gzip.compress(lines)

    with pytest.raises(RecordingUnreadableError, match="is damaged after") as reported:
        bring_in(broker, archive[: len(archive) // 2])

    assert "\n" not in str(reported.value)
    assert f"after {len(broker.messages())} statuses" in str(reported.value)
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


def test_without_a_name_the_server_is_that_of_local_accounts(broker: Broker) -> None:
    local = account(acct="ada", url="https://here.example/@ada")
    far = account(acct="ben@far.example", url="https://far.example/@ben")
    lines = [as_line(status("1", account=far)), b"no JSON", as_line(status("2", account=local))]
    for number, content in enumerate((lines, lines[:1])):
        import_statuses(broker.settings(), io.BytesIO(b"\n".join(content)), instance=None)
        instances = {message["instance"] for message in broker.messages()}
        assert instances == ({"here.example"} if number == 0 else {"here.example", "unknown"})
