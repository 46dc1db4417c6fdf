from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mastodon_assets.contract.messages import Message, decode, encode
from mastodon_assets.contract.times import utc_text
from mastodon_assets.ingest.api.client import OLDEST, MastodonClient
from mastodon_assets.ingest.api.status_ids import readable_id
from mastodon_assets.ingest.policy.normalize import NormalizeError, to_delete, to_upsert
from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
from mastodon_assets.simulator.server import running
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.shared_data import RECORDED

RECEIVED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def upsert(document: dict[str, Any]) -> Message:
    return to_upsert(document, instance="two.example", received_at=RECEIVED, origin="stream")


def test_a_status_becomes_a_message_of_the_contract() -> None:
    document = status(
        "42",
        content="<p>Hello &amp; good <b>morning</b></p>",
        tags=[{"name": "News", "url": "https://one.example/tags/news"}, {"name": "tea"}],
        edited_at="2026-11-20T14:00:00+02:00",
        in_reply_to_id="41",
        sensitive=True,
        spoiler_text="tea",
        account=account(bot=True),
    )

    assert upsert(document) == {
        "v": 1,
        "op": "upsert",
        "instance": "two.example",
        "id": "42",
        "uri": "https://one.example/users/ada/statuses/42",
        "url": "https://one.example/@ada/42",
        "created_at": "2026-11-20T11:59:00.000000Z",
        "edited_at": "2026-11-20T12:00:00.000000Z",
        "received_at": "2026-11-20T12:00:00.000000Z",
        "username": "ada@one.example",
        "user_id": "7",
        "language": "en",
        "content_html": "<p>Hello &amp; good <b>morning</b></p>",
        "content": "Hello & good morning",
        "hashtags": ["news", "tea"],
        "favourites": 1,
        "reblogs": 2,
        "replies": 3,
        "visibility": "public",
        "sensitive": True,
        "spoiler_text": "tea",
        "in_reply_to_id": "41",
        "bot": True,
        "origin": "stream",
    }
    assert decode(encode(upsert(document)), RECEIVED)["status_id"] == "42"


def test_a_delete_keeps_the_contract() -> None:
    message = to_delete("42", instance="two.example", received_at=RECEIVED, origin="backfill")

    assert decode(encode(message), RECEIVED) == {
        "op": "delete",
        "instance": "two.example",
        "status_id": "42",
        "received_at": RECEIVED,
    }


@pytest.mark.parametrize(
    ("changes", "handle"),
    [
        ({"acct": "ada@one.example"}, "ada@one.example"),
        ({"acct": "Ada@Bücher.example"}, "ada@xn--bcher-kva.example"),
        # A page's host may differ from the domain under which the account is found.
        ({"acct": "ada", "url": "https://social.two.example/@ada"}, "ada@two.example"),
        ({"acct": "ada", "url": ""}, "ada@two.example"),
        ({"acct": "ada", "url": None}, "ada@two.example"),
        ({"acct": "ada", "url": "https://["}, "ada@two.example"),
        ({"acct": None, "username": "ada"}, "ada@one.example"),
        ({"acct": None, "username": "ada", "url": "https://ONE.example:8443/"}, "ada@one.example"),
    ],
)
def test_a_handle_is_complete(changes: dict[str, Any], handle: str) -> None:
    assert upsert(status(account=account(**changes)))["username"] == handle


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (None, []),
        ([], []),
        ([{"name": "Tea"}, {"name": "TEA"}, {"name": "tea time"}], ["tea", "tea time"]),
        (["Tea", "news", "tea"], ["tea", "news"]),
        (["caf\u00e9", "cafe\u0301", "ＡＩ", "ai"], ["caf\u00e9", "ai"]),
        ([{"name": None}, {}, 5, ""], []),
        ("tea", []),
    ],
)
def test_hashtags_are_lower_case_and_unique(tags: object, names: list[str]) -> None:
    assert upsert(status(tags=tags))["hashtags"] == names


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-20T11:59:00.000Z",
        "2026-11-20T11:59:00Z",
        "2026-11-20T11:59:00+00:00",
        "2026-11-20T13:59:00.000000+02:00",
        datetime(2026, 11, 20, 11, 59, tzinfo=UTC),
        datetime(2026, 11, 20, 6, 59, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_a_time_is_the_same_instant_in_utc(time: object) -> None:
    assert upsert(status(created_at=time))["created_at"] == "2026-11-20T11:59:00.000000Z"


def test_a_missing_field_is_null_or_nothing() -> None:
    bare = {
        name: status()[name]
        for name in ("id", "uri", "created_at", "account", "content", "visibility")
    }

    message = upsert(bare)

    assert (message["favourites"], message["reblogs"], message["replies"]) == (0, 0, 0)
    assert (message["language"], message["edited_at"], message["hashtags"]) == (None, None, [])
    encode(message)


def test_what_a_server_leaves_empty_is_empty_and_the_post_is_kept() -> None:
    message = upsert(
        status(
            content=None,
            sensitive=0,
            favourites_count=-1,
            replies_count=-1,
            account=account(note=None, bot=1),
        )
    )

    assert (message["content"], message["content_html"]) == ("", None)
    assert (message["favourites"], message["reblogs"], message["replies"]) == (0, 2, 0)
    assert (message["sensitive"], message["bot"]) == (False, True)
    encode(message)


def test_what_other_software_writes_in_its_own_way_is_read() -> None:
    """Counts as text or hidden, no edit as false, an object as address, small letters in times."""
    message = upsert(
        status(
            created_at="2026-11-20t11:59:00z",
            edited_at=False,
            favourites_count="12",
            reblogs_count=-5,
            url={"href": "https://one.example/1"},
            language=["en"],
        )
    )
    assert message["created_at"] == "2026-11-20T11:59:00.000000Z"
    assert (message["edited_at"], message["url"], message["language"]) == (None, None, None)
    assert (message["favourites"], message["reblogs"]) == (12, 0)
    assert upsert(status(language="x" * 256))["language"] is None


def test_the_url_replaces_a_missing_uri() -> None:
    assert upsert(status(uri=None))["uri"] == "https://one.example/@ada/1"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": True}, "id"),
        ({"uri": None, "url": None}, "uri and url"),
        ({"content": ["a"]}, "content"),
        ({"created_at": None}, "created_at"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"created_at": "2026-11-20T11:59:00"}, "created_at"),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "created_at"),
        ({"created_at": datetime(2026, 11, 20)}, "created_at"),  # noqa: DTZ001
        ({"edited_at": "soon"}, "edited_at"),
        ({"account": None}, "account"),
        ({"account": account(acct=None, username=None)}, "account.acct"),
    ],
)
def test_what_lacks_something_is_refused_by_name(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(NormalizeError, match=rf"^{what} (is|are) "):
        upsert(status(**changes))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("01FVW7", "01FVW7"),
        (12, "12"),
        (0, "0"),
        (True, None),
        ("", None),
        (None, None),
        (1.5, None),
    ],
)
def test_ids_are_opaque_text(value: object, text: str | None) -> None:
    assert readable_id(value) == text


def test_a_time_is_written_in_utc() -> None:
    assert utc_text(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=9)))) == (
        "2025-12-31T15:00:00.000000Z"
    )


def test_all_recorded_statuses_keep_the_contract(recorded_statuses: list[dict[str, Any]]) -> None:
    messages = [decode(encode(upsert(document)), RECEIVED) for document in recorded_statuses]

    assert len(messages) == 1163
    assert all("@" in message["username"] for message in messages)
    assert all(message["created_at"].tzinfo is UTC for message in messages)


@pytest.mark.usefixtures("loopback")
def test_the_stream_and_mastodon_py_give_the_same_message(
    recorded_statuses: list[dict[str, Any]],
) -> None:
    # The source serves the last of the lines that share an id.
    by_id = {document["id"]: document for document in recorded_statuses}
    with running(RecordedSource(read_statuses(RECORDED / "statuses.ndjson"))) as server:
        listed = {
            document["id"]: document
            for document in _walk(MastodonClient(server.base_url, token=None))
        }

    assert listed.keys() == by_id.keys()
    for status_id, document in by_id.items():
        assert upsert(listed[status_id]) == upsert(document)
        assert encode(upsert(listed[status_id])) == encode(upsert(document))


def _walk(client: MastodonClient) -> Iterator[dict[str, Any]]:
    min_id = OLDEST
    while page := client.timeline_page(min_id):
        yield from (dict(document) for document in reversed(page))
        min_id = page[0]["id"]
