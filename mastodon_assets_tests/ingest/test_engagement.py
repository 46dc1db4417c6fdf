"""Posts read again an hour and a day later, on real tables, from servers on this machine."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.ingest import engagement
from mastodon_assets.ingest.api.client import OLDEST, MastodonClient
from mastodon_assets.ingest.engagement import is_any_due, read_engagement
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.odd_server import Answer, OddServer, odd_server
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.records import TOPIC, delete, on_partition, staged, upsert

STATUSES = "/api/v1/statuses"
ODD = "odd.example"

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


def settings_of(server: OddServer | str | None, url: SecretStr) -> Settings:
    base_url = server.base_url if isinstance(server, OddServer) else server
    return load_settings(
        _env_file=None,
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


@pytest.mark.parametrize(
    "document",
    [
        status("1", account=account(note="<p>#nobot</p>")),
        status("1", visibility="private"),
        status("1", account=None),
    ],
)
def test_a_post_that_may_not_be_read_any_more_has_no_numbers(
    store: Store, fresh_database_url: SecretStr, document: dict[str, Any]
) -> None:
    store(post("1", timedelta(hours=2)))
    with odd_server(showing(document)) as server:
        read_engagement(settings_of(server, fresh_database_url))
    assert readings(fresh_database_url) == [("1", 1, None, None, None)]


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
    store: Store, fresh_database_url: SecretStr
) -> None:
    source = synthetic_source(toots=150, days=3, seed=2)
    with running(source) as server:
        page = MastodonClient(server.base_url, SecretStr(server.token)).timeline_page(OLDEST)
        ids = [str(each["id"]) for each in page]
        store(*(post(each, timedelta(hours=30), "simulator.example") for each in ids))
        (result,) = read_engagement(
            settings_of(server.base_url, fresh_database_url).model_copy(
                update={"mastodon_access_token": SecretStr(server.token)}
            )
        )
    assert result.problem is None
    assert result.read + result.unseen == len(ids)
    favourites = [row[2] for row in readings(fresh_database_url) if row[2] is not None]
    assert sum(favourites) > 0
