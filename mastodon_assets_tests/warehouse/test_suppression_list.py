import time
from datetime import UTC, datetime

import orjson
import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.suppression_list import (
    Kind,
    SuppressionKeyError,
    SuppressionList,
    add_entries,
    entry_hash,
    entry_hashes,
    read_suppression_list,
    remove_entries,
    watched_suppression_list,
)
from mastodon_assets_tests.support.records import upsert

KEY = SecretStr("a key for tests only")


def listed(kind: Kind, name: str) -> SuppressionList:
    return SuppressionList(KEY, frozenset({entry_hash(KEY, kind, name)}))


@pytest.mark.parametrize(
    ("kind", "name", "username", "instance", "is_match"),
    [
        ("account", "ada@one.example", "ada@one.example", "two.example", True),
        ("account", "@Ada@ONE.example", "ada@one.EXAMPLE", None, True),
        ("account", "ada@one.example", "ada@two.example", "one.example", False),
        ("account", "ada@one.example", "one.example", "ada@one.example", False),
        ("account", "ada@one.example", None, "one.example", False),
        ("server", "one.example", "ada@one.example", "two.example", True),
        ("server", "one.example", "ada@two.example", "One.Example", True),
        ("server", "one.example", None, "one.example", True),
        ("server", "one.example", "ada@sub.one.example", "two.example", False),
        ("server", "one.example", "one.example@two.example", None, False),
        ("server", "one.example", "ada", None, False),
    ],
)
def test_the_list_matches_accounts_and_servers(
    kind: Kind, name: str, username: str | None, instance: str | None, is_match: bool
) -> None:
    assert listed(kind, name).matches(username, instance) is is_match


@pytest.mark.parametrize("listed_name", ["sam@one.example", "sam@social.one.example"])
def test_an_account_matches_by_both_domains_of_its_server(listed_name: str) -> None:
    uri = "https://social.one.example/users/sam/statuses/1"

    assert listed("account", listed_name).matches("sam@one.example", "two.example", uri)
    assert not listed("account", listed_name).matches("eve@one.example", "two.example", uri)


def test_a_server_matches_by_its_pages_host_too() -> None:
    uri = "https://social.one.example/users/sam/statuses/1"

    assert listed("server", "social.one.example").matches("sam@one.example", None, uri)


@pytest.mark.parametrize("spelling", ["sam@BÜCHER.example", "sam@xn--bcher-kva.example"])
def test_an_entry_matches_every_spelling_of_the_name(spelling: str) -> None:
    assert listed("account", "sam@bücher.example").matches(spelling, None)
    assert listed("server", "bücher.example").matches(None, spelling.partition("@")[2])


def test_an_entry_that_an_older_version_wrote_in_unicode_still_matches() -> None:
    older = entry_hashes(KEY, "account", "sam@bücher.example")[1]

    assert older != entry_hash(KEY, "account", "sam@bücher.example")
    assert SuppressionList(KEY, frozenset({older})).matches("sam@xn--bcher-kva.example", None)


def test_an_empty_list_matches_nobody_and_needs_no_key() -> None:
    assert not SuppressionList().matches("ada@one.example", "one.example")
    assert not SuppressionList().matches_record(b"ada@one.example")


@pytest.mark.parametrize(
    ("value", "is_match"),
    [
        (orjson.dumps(upsert(favourites=-1)), True),
        (orjson.dumps(upsert(username="ADA@one.example", content={})), True),
        (orjson.dumps(upsert(username="bob@one.example", content="by @ada@one.example")), False),
        # The author cannot be read.
        (orjson.dumps(upsert())[:-20], True),
        (orjson.dumps(upsert(username=["ada@one.example"])), True),
        (b'{"username": "ada\\u0040one.example"', True),
        (b"\xff mail to ada@one.example.", True),
        (b"ada@one.example.com", False),
        (b"canada@one.example", False),
        (b"[" * 100_000, False),
        (b"", False),
        (None, False),
    ],
)
def test_a_broken_record_matches_by_its_author_or_by_any_name_in_it(
    value: bytes | None, is_match: bool
) -> None:
    assert listed("account", "ada@one.example").matches_record(value) is is_match


_BY_TWO = upsert(instance="three.example", username="ada@two.example", uri="https://two.example/1")


@pytest.mark.parametrize(
    ("value", "is_match"),
    [
        (orjson.dumps(upsert(username="ada@two.example", favourites=-1)), True),
        (orjson.dumps({**_BY_TWO, "v": 2}), False),
        (orjson.dumps({**_BY_TWO, "v": 2, "uri": "https://ONE.example/1"}), True),
        (b'"uri": "https://one.example/1', True),
        (b'"uri": "https:\\/\\/one.example\\/1', True),
        (b"x@one.example", True),
        (b"https://two.example/one.example", False),
    ],
)
def test_a_broken_record_matches_by_its_servers_too(value: bytes, is_match: bool) -> None:
    assert listed("server", "one.example").matches_record(value) is is_match


def test_the_list_names_nobody_and_is_read_with_its_key_only(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as connection:
        assert read_suppression_list(connection, None) == SuppressionList()
        add_entries(connection, KEY, "account", ["ada@one.example"])
        row = connection.execute("SELECT w::text FROM masto.withdrawn w").fetchone()
        assert row is not None
        assert "ada" not in row[0]
        assert KEY.get_secret_value() not in row[0]
        assert read_suppression_list(connection, KEY).matches("ada@one.example", None)
        with pytest.raises(SuppressionKeyError, match=r"1 accounts .* WITHDRAWN_KEY is not set"):
            read_suppression_list(connection, None)
        with pytest.raises(SuppressionKeyError, match=r"1 accounts .* under another WITHDRAWN_KEY"):
            read_suppression_list(connection, SecretStr("another key for tests"))


def test_an_entry_keeps_its_time_and_can_be_removed(fresh_database_url: SecretStr) -> None:
    with transaction(fresh_database_url) as connection:
        add_entries(connection, KEY, "server", ["one.example"])
        connection.execute("UPDATE masto.withdrawn SET withdrawn_at = '2026-01-01 00:00+00'")
        add_entries(connection, KEY, "server", ["ONE.example"])
        rows = connection.execute("SELECT withdrawn_at FROM masto.withdrawn").fetchall()
        assert rows == [(datetime(2026, 1, 1, tzinfo=UTC),)]
        assert remove_entries(connection, KEY, "account", ["one.example"]) == 0
        assert remove_entries(connection, KEY, "server", ["one.example"]) == 1
        assert read_suppression_list(connection, KEY) == SuppressionList()


def test_a_watched_list_is_read_again_and_stays_while_the_database_is_away(
    fresh_database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    settings = load_settings(database_url=fresh_database_url, withdrawn_key=KEY)
    now = watched_suppression_list(settings)
    with transaction(fresh_database_url) as connection:
        add_entries(connection, KEY, "server", ["one.example"])

    clock[0] = 29
    assert not now().matches(None, "one.example")
    clock[0] = 31
    assert now().matches(None, "one.example")
    with monkeypatch.context() as patched:
        patched.setattr(Settings, "postgres_url", SecretStr("postgresql://a:b@127.0.0.1:9/c"))
        clock[0] = 62
        assert now().matches(None, "one.example")
    clock[0] = 93
    with transaction(fresh_database_url) as connection:
        remove_entries(connection, KEY, "server", ["one.example"])
    assert not now().matches(None, "one.example")


def test_without_a_database_the_list_cannot_be_watched() -> None:
    with pytest.raises(ServiceUnavailableError):
        watched_suppression_list(load_settings(database_url="postgresql://a:b@127.0.0.1:9/c"))
