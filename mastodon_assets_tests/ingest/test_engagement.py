"""Posts read again an hour and a day later, on real tables, from servers on this machine."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.ingest import engagement
from mastodon_assets.ingest import homes as homes_module
from mastodon_assets.ingest.api.client import OLDEST, MastodonClient
from mastodon_assets.ingest.engagement import is_any_due, read_engagement
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.handling import Handling
from mastodon_assets_tests.support.mock_broker import Broker
from mastodon_assets_tests.support.odd_server import Answer, OddServer, odd_server
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.records import TOPIC, delete, on_partition, staged, upsert

STATUSES = "/api/v1/statuses"
ODD = "odd.example"
BO = "bo@abroad.example"

Store = Callable[..., None]


@pytest.fixture
def store(fresh_database_url: SecretStr) -> Iterator[Store]:
    """`store(messages…)`: through the sink, in a batch of their own."""
    connection = connect(fresh_database_url)
    prepare_session(connection)
    connection.commit()
    stored = 0

    def write(*messages: dict[str, Any]) -> None:
        nonlocal stored
        records = on_partition(messages, first=stored)
        stored += len(messages)
        with connection.transaction():
            write_batch(connection, staged(records), {TOPIC: "topic-id"})

    with connection:
        yield write


def post(status_id: str, age: timedelta, instance: str = ODD) -> dict[str, Any]:
    at = (datetime.now(UTC) - age).isoformat()
    return upsert(status_id, instance=instance, created_at=at, received_at=at)


def settings_of(
    server: OddServer | str | None, url: SecretStr, kafka: str = "127.0.0.1:1"
) -> Settings:
    base_url = server.base_url if isinstance(server, OddServer) else server
    return load_settings(
        _env_file=None,
        kafka_bootstrap_servers=kafka,
        mastodon_api_base_url=base_url,
        mastodon_access_token="token",
        database_url=url,
    )


def readings(url: SecretStr) -> list[tuple[Any, ...]]:
    """status_id, due_hours, favourites, reblogs, replies."""
    with transaction(url, snapshot=True) as connection:
        return connection.execute(
            "SELECT status_id, due_hours, e.favourites, e.reblogs, e.replies"
            "  FROM masto.toots_engagement e JOIN masto.toots_raw USING (id) ORDER BY 1, 2"
        ).fetchall()


def showing(*documents: dict[str, Any]) -> dict[str, Answer]:
    return {STATUSES: Answer(json.dumps(documents).encode())}


def requested(server: OddServer) -> list[str]:
    return [path for path, _ in server.requests if path.startswith(f"{STATUSES}?")]


def test_a_reading_is_made_at_its_age_and_not_when_it_is_too_old(
    store: Store, fresh_database_url: SecretStr
) -> None:
    ages = {
        "young": timedelta(minutes=50),
        "hour": timedelta(minutes=70),
        "almost": timedelta(hours=23),
        "day": timedelta(hours=25),
        "week": timedelta(days=6, hours=23),
        "old": timedelta(days=8),
    }
    store(*(post(name, age) for name, age in ages.items()))
    shown = [status(name, favourites_count=5) for name in ages]
    with odd_server(showing(*shown)) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url))
        assert (result.server, result.read, result.unseen, result.problem) == (ODD, 4, 0, None)
        assert [row[:3] for row in readings(fresh_database_url)] == [
            ("almost", 1, 5),
            ("day", 24, 5),
            ("hour", 1, 5),
            ("week", 24, 5),
        ]
        (again,) = read_engagement(settings_of(server, fresh_database_url))
        assert (again.read, again.overdue) == (0, 0)
        assert len(requested(server)) == 1


def test_a_post_that_is_not_shown_is_no_delete_and_is_not_requested_again(
    store: Store, fresh_database_url: SecretStr
) -> None:
    store(post("1", timedelta(hours=2)), post("2", timedelta(hours=2)))
    with odd_server(showing(status("1"))) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url))
        read_engagement(settings_of(server, fresh_database_url))
        assert len(requested(server)) == 1
    assert (result.read, result.unseen) == (1, 1)
    assert readings(fresh_database_url) == [("1", 1, 1, 2, 3), ("2", 1, None, None, None)]


def by_ada(status_id: str, age: timedelta = timedelta(hours=2), **changes: Any) -> dict[str, Any]:
    return post(status_id, age) | {"username": f"ada@{ODD}"} | changes


def by_home(status_id: str, **changes: Any) -> dict[str, Any]:
    """A status of an account of the server itself."""
    return status(status_id, account=account(acct="ada", **changes))


def test_what_a_server_shows_and_may_not_be_read_any_more_is_deleted(
    store: Store, fresh_database_url: SecretStr, broker: Broker
) -> None:
    store(by_ada("1"), by_ada("2"), by_ada("3"), by_ada("4"))
    private, odd = by_home("2") | {"visibility": "private"}, by_home("3") | {"account": None}
    with odd_server(showing(by_home("1"), private, odd, by_home("4"))) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url, broker.servers))
    assert (result.read, result.unseen, result.removed, result.problem) == (2, 2, 1, None)
    (message,) = broker.messages()
    assert (message["op"], message["instance"], message["id"]) == ("delete", ODD, "2")
    # Consent that cannot be read says nothing about what is stored.
    assert readings(fresh_database_url)[2] == ("3", 1, None, None, None)


def test_all_stored_posts_of_an_account_that_now_refuses_are_deleted(
    store: Store, fresh_database_url: SecretStr, broker: Broker
) -> None:
    young, abroad = timedelta(minutes=5), {"instance": "abroad.example"}
    store(by_ada("1"), by_ada("2", young), by_ada("9", young, **abroad), post("3", young))
    with odd_server(showing(by_home("1", note="<p>#nobot</p>"))) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url, broker.servers))
    assert (result.unseen, result.removed, result.problem) == (1, 3, None)
    assert {each["op"] for each in broker.messages()} == {"delete"}
    deletes = {(each["instance"], each["id"]) for each in broker.messages()}
    assert deletes == {(ODD, "1"), (ODD, "2"), ("abroad.example", "9")}


def test_a_refusal_that_only_a_reading_shows_counts_for_later_posts_read_abroad(
    store: Store,
    fresh_database_url: SecretStr,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(homes_module, "_READ_AGAIN_SECONDS", 0)
    bo = "bo@abroad.example"
    store(by_ada("1"), post("2", timedelta(hours=2)) | {"username": bo})
    shown = [
        by_home("1", note="<p>#nobot</p>"),
        status("2", account=account(acct=bo, noindex=True)),
    ]
    # In the running ingester, which has read at its start what was recorded.
    homes = Homes(fresh_database_url)
    homes.load()
    abroad = Handling(instance="abroad.example", homes=homes)
    with odd_server({STATUSES: lambda _: Answer(json.dumps(shown).encode())}) as server:
        settings = settings_of(server, fresh_database_url, broker.servers)
        (result,) = read_engagement(settings)
        assert (result.removed, result.problem) == (2, None)
        homes.save()
        # What a server says of accounts of others is not their home's word.
        assert (homes.refuses(f"ada@{ODD}"), homes.refuses(bo)) == (True, False)
        abroad.event("update", status("A1", account=account(acct=f"ada@{ODD}")))
        assert dict(abroad.summary.withheld) == {"refused_at_home": 1}
        # Later home shows otherwise.
        store(by_ada("3"))
        shown[:] = [by_home("3")]
        read_engagement(settings)
    homes.save()
    abroad.event("update", status("A2", account=account(acct=f"ada@{ODD}")))
    assert abroad.topics.kinds() == [("upsert", "A2")]


def test_a_post_that_is_not_shown_is_deleted_if_its_own_server_says_that_it_is_gone(
    store: Store, fresh_database_url: SecretStr, broker: Broker
) -> None:
    abroad = timedelta(hours=2)
    store(*map(by_ada, ("gone", "deleted", "hidden", "refused")), post("abroad", abroad))
    singles = {
        f"{STATUSES}/deleted": Answer(b"{}", 410),
        f"{STATUSES}/hidden": Answer(json.dumps(by_home("hidden")).encode()),
        f"{STATUSES}/refused": Answer(b"{}", 403),
    }
    with odd_server({**showing(), **singles}) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url, broker.servers))
        asked = {path for path, _ in server.requests if path.startswith(f"{STATUSES}/")}
    assert asked == {f"{STATUSES}/gone", *singles}
    assert (result.read, result.unseen, result.removed, result.problem) == (1, 4, 2, None)
    assert {(each["op"], each["id"]) for each in broker.messages()} == {
        ("delete", "gone"),
        ("delete", "deleted"),
    }
    assert ("hidden", 1, 1, 2, 3) in readings(fresh_database_url)


def test_removals_are_held_if_too_many_of_the_posts_that_were_asked_for_would_go(
    store: Store, fresh_database_url: SecretStr, broker: Broker
) -> None:
    store(*map(by_ada, "123"))
    with odd_server(showing(by_home("1"))) as server:
        settings = settings_of(server, fresh_database_url, broker.servers)
        cautious = settings.model_copy(update={"removal_brake_min": 3})
        (result,) = read_engagement(cautious)
    assert (result.read, result.unseen, result.removed) == (1, 2, 0)
    assert result.problem is not None
    assert result.problem.startswith("2 posts are not removed: 2 of 3 posts that were asked for")
    assert result.problem.endswith(f"run: mastodon-assets sources accept {ODD}")
    assert broker.messages() == []
    with transaction(fresh_database_url, snapshot=True) as connection:
        ((held,),) = connection.execute(
            "SELECT status_ids FROM masto.suspicious_sources"
        ).fetchall()
    assert set(held) == {"2", "3"}


def test_readings_wait_if_kafka_does_not_take_their_deletes(
    store: Store, fresh_database_url: SecretStr
) -> None:
    store(by_ada("1"))
    away = f"127.0.0.1:{free_port()}"
    with odd_server(showing()) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url, away))
    assert result.problem is not None
    assert result.problem.startswith(f"Kafka at {away} does not answer")
    assert readings(fresh_database_url) == []


def test_counts_that_are_not_numbers_are_null(store: Store, fresh_database_url: SecretStr) -> None:
    store(post("1", timedelta(hours=2)))
    odd = status("1", favourites_count="many", reblogs_count=-1, replies_count=2**31)
    with odd_server(showing(odd)) as server:
        read_engagement(settings_of(server, fresh_database_url))
    assert readings(fresh_database_url) == [("1", 1, None, None, None)]


def test_a_rate_limit_ends_the_readings_and_earlier_ones_are_kept(
    store: Store, fresh_database_url: SecretStr
) -> None:
    store(*(post(str(number), timedelta(hours=4, minutes=number)) for number in range(30)))
    answers = iter([Answer(json.dumps([status("0")]).encode())])
    limit = Answer(b'{"error":"Too many requests"}', 429)

    def answer(query: Mapping[str, str]) -> Answer:
        return next(answers, limit)

    with odd_server({STATUSES: answer}) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url))
        assert len(requested(server)) == 2
    assert (result.read, result.unseen, result.overdue) == (1, 19, 10)
    assert result.problem is not None
    assert "wants fewer requests" in result.problem
    assert len(readings(fresh_database_url)) == 20


def test_a_foreign_server_gets_a_bounded_number_of_requests_for_the_latest_due(
    store: Store, fresh_database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MastodonClient, "is_on_this_machine", False)
    monkeypatch.setattr(engagement, "_MOST_REQUESTS", 2)
    store(*(post(str(number), timedelta(hours=2, minutes=number)) for number in range(50)))
    with odd_server(showing()) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url))
        assert len(requested(server)) == 2
    assert (result.unseen, result.problem) == (40, None)
    read = {int(row[0]) for row in readings(fresh_database_url)}
    assert read == set(range(40))


def test_a_server_without_posts_by_ids_is_reported(
    store: Store, fresh_database_url: SecretStr
) -> None:
    store(post("1", timedelta(hours=2)))
    with odd_server({}) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url))
    assert result.problem == "the server does not serve posts by their ids (Mastodon 4.3 does)"
    assert readings(fresh_database_url) == []


def test_a_server_that_is_away_is_a_problem_and_no_error(
    store: Store, fresh_database_url: SecretStr
) -> None:
    store(post("1", timedelta(hours=2)))
    away = f"http://127.0.0.1:{free_port()}"
    (result,) = read_engagement(settings_of(away, fresh_database_url))
    assert result.problem is not None
    assert "is the server up" in result.problem


def test_without_a_server_nothing_is_read(fresh_database_url: SecretStr) -> None:
    assert read_engagement(settings_of(None, fresh_database_url)) == []


def test_posts_of_another_server_are_not_requested(
    store: Store, fresh_database_url: SecretStr
) -> None:
    store(post("1", timedelta(hours=2), instance="unknown"))
    with odd_server(showing(status("1"))) as server:
        (result,) = read_engagement(settings_of(server, fresh_database_url))
        assert requested(server) == []
    assert (result.read, result.unseen) == (0, 0)
    assert not is_any_due(settings_of(None, fresh_database_url))


def test_readings_are_deleted_with_their_post(store: Store, fresh_database_url: SecretStr) -> None:
    store(post("1", timedelta(hours=2)), post("2", timedelta(hours=2)))
    with odd_server(showing(status("1"), status("2"))) as server:
        read_engagement(settings_of(server, fresh_database_url))
    store(delete("1", instance=ODD))
    assert [row[0] for row in readings(fresh_database_url)] == ["2"]


def test_readings_of_an_edited_post_stay(store: Store, fresh_database_url: SecretStr) -> None:
    first = post("1", timedelta(hours=2))
    store(first)
    with odd_server(showing(status("1"))) as server:
        read_engagement(settings_of(server, fresh_database_url))
    store(first | {"content": "other words", "edited_at": datetime.now(UTC).isoformat()})
    assert len(readings(fresh_database_url)) == 1


def test_the_simulators_posts_are_read_again_through_the_real_client(
    store: Store, fresh_database_url: SecretStr, broker: Broker
) -> None:
    source = synthetic_source(toots=150, days=3, seed=2)
    with running(source) as server:
        page = MastodonClient(server.base_url, SecretStr(server.token)).timeline_page(OLDEST)
        ids = [str(each["id"]) for each in page]
        store(*(post(each, timedelta(hours=30), "simulator.example") for each in ids))
        (result,) = read_engagement(
            settings_of(server.base_url, fresh_database_url, broker.servers).model_copy(
                update={"mastodon_access_token": SecretStr(server.token)}
            )
        )
    assert result.problem is None
    assert result.read + result.unseen == len(ids)
    favourites = [row[2] for row in readings(fresh_database_url) if row[2] is not None]
    assert sum(favourites) > 0
