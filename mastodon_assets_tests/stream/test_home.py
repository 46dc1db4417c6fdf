"""Posts whose home is read as well as a server that blocks it: home has the last word."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.stream.retention import remove_posts_deleted_at_home
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.server_names import record_server_names
from mastodon_assets_tests.support.merge_sink import Sink, opened_sink
from mastodon_assets_tests.support.records import RECEIVED, delete, upsert

# A split domain: pages and uris are at a host, accounts at a domain.
HOST, HOME, ABROAD = "b.fed.example", "fed.example", "a.gts.example"
TEXT, ABOUT = "SELECT content_txt FROM masto.toots_raw", "SELECT * FROM masto.home_questions"


@pytest.fixture(scope="module")
def opened(database_url: SecretStr) -> Iterator[Sink]:
    with opened_sink(database_url) as sink:
        yield sink


@pytest.fixture
def sink(opened: Sink) -> Sink:
    opened.empty()
    opened.read({HOST: HOME, HOME: HOME, ABROAD: ABROAD})
    return opened


def at(minutes: float) -> str:
    return f"{RECEIVED + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


def post(instance: str, minutes: float, content: str = "hello", **changes: Any) -> dict[str, Any]:
    """Bea's post, as its home or a server abroad lists it."""
    return upsert(
        "B1" if instance == HOME else "A1",
        instance=instance,
        uri=f"https://{HOST}/users/bea/statuses/B1",
        username=f"bea@{HOME}",
        received_at=at(minutes),
        content=content,
        **changes,
    )


def gone(instance: str, minutes: float) -> dict[str, Any]:
    return delete("B1" if instance == HOME else "A1", instance=instance, received_at=at(minutes))


def is_consistent(sink: Sink) -> bool:
    with sink.connection.transaction():
        in_windows, rows = window_sum_and_rows(sink.connection)
    return in_windows == rows


def test_the_end_of_a_uri_that_is_too_long_for_an_id_is_none(sink: Sink) -> None:
    """It would be too long for the index as well, and the post would be rejected."""
    letters = "".join(chr(0x20000 + 7919 * number % 40_000) for number in range(3_000))
    uri = f"https://{HOST}/users/bea/statuses/{letters}"
    abroad = post(ABROAD, 0) | {"uri": uri}

    assert sink.write(abroad).stored == 1
    assert sink.rows("SELECT * FROM masto.home_ids") == []


def test_a_delete_abroad_holds_until_home_shows_the_post_again(sink: Sink) -> None:
    sink.write(post(HOME, 0), post(ABROAD, 1))
    assert sink.rows(ABOUT) == []
    sink.write(gone(ABROAD, 2))
    assert sink.rows(TEXT) == []
    questions = "SELECT instance, status_id, asked_at FROM masto.home_questions"
    assert sink.rows(questions) == [(HOME, "B1", None)]

    # Neither what came before, nor a server abroad, nor a recording brings it back.
    counts = sink.write(post(HOME, 1), post(ABROAD, 3), post(HOME, 4, origin="import"))
    assert (counts.tombstoned, counts.stored, counts.messages) == (3, 0, 3)
    assert sink.rows(TEXT) == []

    counts = sink.write(post(HOME, 5, "shown"))
    assert (counts.stored, sink.rows(TEXT), sink.rows(ABOUT)) == (1, [("shown",)], [])
    assert is_consistent(sink)
    # From now on the server abroad has no word.
    counts = sink.write(post(ABROAD, 6, "abroad", edited_at=at(6)))
    assert (counts.stale, sink.rows(TEXT)) == (1, [("shown",)])
    # Until it deletes once more.
    sink.write(gone(ABROAD, 7))
    assert sink.rows(TEXT) == sink.rows("SELECT id FROM masto.home_versions") == []
    assert is_consistent(sink)


def test_a_delete_at_home_is_final_and_finds_a_post_known_from_abroad_alone(sink: Sink) -> None:
    for order in permutations([post(ABROAD, 1), gone(HOME, 2)]):
        sink.empty()
        sink.read({HOST: HOME, HOME: HOME, ABROAD: ABROAD})
        for message in (*order, post(ABROAD, 9)):
            sink.write(message)
        # Home never listed it, so the id in the uri alone says which post it is.
        assert sink.rows(TEXT) == []
    for order in permutations([post(ABROAD, 1), gone(HOME, 2), gone(ABROAD, 0)]):
        sink.empty()
        sink.read({HOST: HOME, HOME: HOME, ABROAD: ABROAD})
        for message in order:
            sink.write(message)
        sink.write(post(HOME, 9), post(ABROAD, 9))
        assert sink.rows(TEXT) == sink.rows(ABOUT) == []
        assert is_consistent(sink)


def test_a_document_that_home_sent_after_the_delete_is_found_in_whatever_order_they_come(
    sink: Sink,
) -> None:
    """The row is another version when the delete arrives: home's document was kept beside it."""
    edit = post(ABROAD, 3, "abroad", edited_at=at(0))
    for order in permutations([post(HOME, 0), edit, post(HOME, 5, "shown"), gone(ABROAD, 4)]):
        sink.empty()
        sink.read({HOST: HOME, HOME: HOME, ABROAD: ABROAD})
        for message in order:
            sink.write(message)
        assert sink.rows(TEXT) == [("shown",)]
        assert is_consistent(sink)


def test_where_home_is_not_read_a_delete_of_any_server_is_final(sink: Sink) -> None:
    sink.empty()
    sink.read({ABROAD: ABROAD, "c.example": "c.example"})
    sink.write(post(ABROAD, 1), gone(ABROAD, 2), post("c.example", 3))
    assert sink.rows(TEXT) == sink.rows(ABOUT) == []


def test_an_id_in_a_foreign_uri_never_takes_the_place_of_homes_own_post(sink: Sink) -> None:
    forged = post(ABROAD, 1, "forged") | {"uri": f"https://{HOST}/users/mallory/statuses/B1"}
    sink.write(forged)
    counts = sink.write(post(HOME, 2))
    assert (counts.stored, counts.rejected) == (1, 0)
    assert sorted(sink.rows(TEXT)) == [("forged",), ("hello",)]
    sink.write(gone(HOME, 3))
    assert sink.rows(TEXT) == []


def test_a_server_that_is_read_from_now_on_is_the_home_of_posts_stored_before(
    sink: Sink, database_url: SecretStr
) -> None:
    sink.empty()
    sink.read({ABROAD: ABROAD})
    sink.write(post(ABROAD, 1), gone(HOME, 2))
    for has_ids in (False, True):
        record_server_names(database_url, HOME, {HOME: False, HOST: has_ids})
    # No server speaks for another one that is read.
    record_server_names(database_url, ABROAD, {HOST: True})
    assert dict(sink.rows("SELECT name, instance FROM masto.server_names"))[HOST] == HOME
    assert sink.rows("SELECT instance, status_id FROM masto.home_ids") == [(HOME, "B1")]

    assert sink.rows(TEXT) == [("hello",)]
    assert remove_posts_deleted_at_home(sink.connection) == 1
    assert sink.rows(TEXT) == []
    assert is_consistent(sink)
