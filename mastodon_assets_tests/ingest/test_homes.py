"""What sources of several servers know of each other, in real tables."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits, StoppedError
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.recovery.home_questions import (
    RESERVED_REQUESTS,
    HomeAnswer,
    HomeAsker,
)
from mastodon_assets.ingest.stored_posts import PostAlias
from mastodon_assets.warehouse.database import connect
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.handling import NOW, Handling

# A split domain: pages and uris are at a host, accounts at a domain.
HOST, HOME, ABROAD = "b.fed.example", "fed.example", "a.gts.example"
URI = f"https://{HOST}/users/bea/statuses/"


@pytest.fixture
def connection(database_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    with connect(database_url) as connection:
        connection.autocommit = True
        for name in ("account_refusals", "server_names", "home_questions"):
            connection.execute(f"TRUNCATE masto.{name}".encode())
        yield connection


def loaded(database_url: SecretStr) -> Homes:
    homes = Homes(database_url)
    homes.load()
    return homes


def by_bea(status_id: str, acct: str, **changes: Any) -> dict[str, Any]:
    return status(status_id, uri=f"{URI}{status_id}", account=account(acct=acct, **changes))


def test_a_refusal_at_home_counts_for_posts_read_abroad_until_home_shows_otherwise(
    database_url: SecretStr, connection: psycopg.Connection[Any]
) -> None:
    homes = loaded(database_url)
    home = Handling(instance=HOME, homes=homes)
    home.event("update", by_bea("1", "bea", note="<p>#nobot</p>"))
    # A post for followers says nothing about the account.
    home.event("update", by_bea("2", "bea") | {"visibility": "private"})
    homes.save()
    ((hashed, instance),) = connection.execute(
        "SELECT hash, instance FROM masto.account_refusals"
    ).fetchall()
    assert (len(hashed), instance) == (32, HOME)
    assert b"bea" not in hashed

    later = loaded(database_url)
    abroad = Handling(instance=ABROAD, homes=later)
    abroad.event("update", by_bea("A1", f"bea@{HOME}"))
    abroad.event("update", by_bea("A2", f"bo@{HOME}"))
    assert abroad.topics.kinds() == [("upsert", "A2")]
    assert dict(abroad.summary.withheld) == {"refused_at_home": 1}
    assert dict(abroad.summary.errors) == {}
    # A recording neither hides what home says, nor says it.
    recorded = Handling(instance=ABROAD, homes=later)
    recorded.handler.handle_recorded(json.dumps(by_bea("A9", f"bea@{HOME}")).encode(), NOW)
    recorded_at_home = Handling(instance=HOME, homes=later)
    recorded_at_home.handler.handle_recorded(json.dumps(by_bea("9", "bea")).encode(), NOW)
    assert recorded.topics.kinds() == recorded_at_home.topics.kinds() == []
    assert later.refuses(f"bea@{HOME}")
    # What a server abroad says of the account changes nothing; what home says does.
    home = Handling(instance=HOME, homes=later)
    home.event("update", by_bea("3", "bea"))
    abroad.event("update", by_bea("A3", f"bea@{HOME}"))
    assert abroad.topics.kinds() == [("upsert", "A2"), ("upsert", "A3")]
    later.save()
    assert connection.execute("SELECT FROM masto.account_refusals").fetchall() == []


def test_posts_are_looked_for_no_more_if_another_process_saw_that_their_account_agrees_now(
    database_url: SecretStr, connection: psycopg.Connection[Any]
) -> None:
    homes = loaded(database_url)
    home = Handling(instance=HOME, homes=homes)
    home.event("update", by_bea("1", "bea", noindex=True))
    assert home.handler.refusing_accounts() == [f"bea@{HOME}"]
    homes.note_answer(f"bea@{HOME}", HOME, None)
    assert home.handler.refusing_accounts() == []


def test_posts_on_their_way_to_the_tables_are_those_of_which_the_server_has_the_word(
    database_url: SecretStr, connection: psycopg.Connection[Any]
) -> None:
    homes = loaded(database_url)
    home, abroad = Handling(instance=HOME, homes=homes), Handling(instance=ABROAD, homes=homes)
    for status_id, acct in (("A1", f"bea@{HOME}"), ("A2", f"bo@{HOME}"), ("A3", "ada@c.example")):
        abroad.event("update", by_bea(status_id, acct))
    home.event("update", by_bea("1", "bea"))
    home.event("update", by_bea("3", "ada@c.example"))
    bea, ada = f"bea@{HOME}", "ada@c.example"
    of_bea = [PostAlias(ABROAD, "A1"), PostAlias(HOME, "1")]
    # At home for all servers, of other accounts for the server that was read.
    assert home.handler.published_posts([bea]) == of_bea
    assert home.handler.published_posts([ada]) == [PostAlias(HOME, "3")]
    assert abroad.handler.published_posts([bea]) == of_bea[:1]
    assert home.handler.accounts_published([bea, "eve@c.example"]) == {bea}
    home.handler.handle_refused([bea], of_bea, NOW)
    assert home.handler.published_posts([bea]) == []


def test_a_server_is_known_by_its_domain_and_by_the_host_of_its_posts(
    database_url: SecretStr, connection: psycopg.Connection[Any]
) -> None:
    homes = loaded(database_url)
    home, abroad = Handling(instance=HOME, homes=homes), Handling(instance=ABROAD, homes=homes)
    homes.note_name(HOME, HOME, has_ids=False)
    abroad.event("update", by_bea("A1", f"bea@{HOME}"))
    home.event("update", by_bea("B1", "bea"))
    for _ in range(2):
        homes.save()
    names = "SELECT name, instance, has_ids FROM masto.server_names ORDER BY 1"
    assert connection.execute(names).fetchall() == [(HOST, HOME, True), (HOME, HOME, False)]


def test_each_question_is_taken_once_and_closed_if_its_answer_changes_nothing(
    database_url: SecretStr, connection: psycopg.Connection[Any]
) -> None:
    for number in (1, 2):
        connection.execute(
            "INSERT INTO masto.home_questions (id, instance, status_id) VALUES (%s, %s, %s)",
            (number, HOME, f"B{number}"),
        )
    homes = loaded(database_url)
    assert homes.take_questions(ABROAD) == []
    assert sorted(homes.take_questions(HOME)) == ["B1", "B2"]
    assert homes.take_questions(HOME) == []
    homes.close_questions([PostAlias(HOME, "B1"), PostAlias(ABROAD, "B2")])
    connection.execute("UPDATE masto.home_questions SET asked_at = now() - interval '16 minutes'")
    assert homes.take_questions(HOME) == ["B2"]


@pytest.mark.parametrize("serves_by_ids", [True, False])
def test_home_is_asked_before_all_others_and_answers_for_each_post(serves_by_ids: bool) -> None:
    stored = {"B1": status("B1"), "B3": status("B3")}

    class _Client:
        def statuses(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
            if not serves_by_ids:
                raise RefusedError("405", 405)
            return [stored[each] for each in ids if each in stored]

        def status(self, status_id: str) -> Mapping[str, Any] | None:
            return stored.get(status_id)

    limits = RateLimits(is_limited=True)
    while not limits.every.take():
        pass
    answers: list[HomeAnswer] = []
    caller = RateLimitedCaller(threading.Event(), spare=-RESERVED_REQUESTS)
    asker = HomeAsker(
        _Client(),  # type: ignore[arg-type]
        caller=caller,
        rate_limits=limits,
        put=lambda item: not answers.append(item),  # type: ignore[func-returns-value]
        questions=lambda: ["B1", "B2", "B3"],
    )
    asker.ask()
    found = {answer.status_id: answer.status for answer in answers}
    assert found == {**stored, "B2": None}
    ended = HomeAsker(
        _Client(),  # type: ignore[arg-type]
        caller=caller,
        rate_limits=limits,
        put=lambda _item: False,
        questions=lambda: ["B1"],
    )
    with pytest.raises(StoppedError):
        ended.ask()


def test_what_home_shows_is_published_again_and_what_is_gone_becomes_a_delete() -> None:
    home = Handling(instance=HOME)
    shown, refusing = by_bea("1", "bea"), by_bea("3", "bea", noindex=True)
    home.event("update", shown)
    home.event("update", json.loads(json.dumps(shown)))
    assert home.handler.handle_home_answer("1", shown, NOW)
    assert home.handler.handle_home_answer("2", None, NOW)
    assert not home.handler.handle_home_answer("3", refusing, NOW)
    assert home.topics.kinds() == [("upsert", "1"), ("upsert", "1"), ("delete", "2")]
