"""Removals that are concluded for many posts at once wait for a person."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from mastodon_assets.cli.app import app
from mastodon_assets.config.settings import as_environment
from mastodon_assets.errors import SettingsError
from mastodon_assets.ingest import checkpoint, removal_brake, supervisor
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.removal_brake import RemovalBrake, Suspicion, read_suspicious
from mastodon_assets.ingest.source_states import (
    SourceState,
    claim_address,
    read_sources,
    save_state,
)
from mastodon_assets.ingest.supervisor import SuspiciousServerError, ingest
from mastodon_assets.operations.accept_source import accept_source
from mastodon_assets.operations.doctor import check_suspicions
from mastodon_assets.simulator.statuses import snowflake
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.log_lines import log_lines
from mastodon_assets_tests.support.mock_broker import Broker
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server, stream

INSTANCE = "one.example"
TIMELINE = "/api/v1/timelines/public"
IDS = [str(number) for number in range(100)]


def brake_of(url: SecretStr) -> RemovalBrake:
    return RemovalBrake(url, INSTANCE, share=0.33, fewest=50)


def test_more_than_a_share_of_many_posts_waits_until_a_person_accepts(
    fresh_database_url: SecretStr,
) -> None:
    url = fresh_database_url
    brake = brake_of(url)
    assert brake.passed(IDS[:33], 100) == IDS[:33]
    assert brake.passed(IDS[:49], 49) == IDS[:49]
    assert read_suspicious(url) == {}

    assert brake.passed(IDS[:34], 100) == ()
    # Now nothing is concluded, however few posts it is.
    assert brake.passed(["x"], 5) == ()
    assert brake_of(url).passed(["y"], 5) == ()
    reason = "34 of 100 posts that were asked for are gone"
    assert read_suspicious(url) == {INSTANCE: Suspicion(reason, [*IDS[:34], "x", "y"])}
    assert brake.reason == reason
    save_state(url, INSTANCE, "public", SourceState("connected", None, None, None, None))
    assert read_sources(url)[0].suspicious == reason

    removal_brake.accept_suspicion(url, INSTANCE)
    assert read_suspicious(url) == {}
    assert read_sources(url)[0].suspicious is None
    for each in (brake, brake_of(url)):
        assert each.passed(IDS, 100) == IDS
        assert each.reason is None


def test_a_server_that_shows_its_posts_again_is_not_suspicious_any_more(
    fresh_database_url: SecretStr,
) -> None:
    brake = brake_of(fresh_database_url)
    assert brake.passed(IDS, 100) == ()
    assert brake.passed(["7"], 60) == ["7"]
    assert brake.reason is None
    assert read_suspicious(fresh_database_url) == {}


def test_another_server_at_an_address_is_not_recorded_until_it_is_accepted(
    fresh_database_url: SecretStr,
) -> None:
    url = fresh_database_url

    def claim(instance: str, source: str = "public", *, is_accepted: bool = False) -> str | None:
        return claim_address(url, instance, source, "host.example", is_accepted=is_accepted)

    assert claim("one.example") is None
    assert claim("one.example") is None
    assert claim("two.example") == "one.example"
    assert claim("two.example", "local") is None
    assert claim("two.example", is_accepted=True) is None
    assert claim("two.example") is None
    assert claim("one.example") == "two.example"


def test_accepting_publishes_the_deletes_that_waited(
    broker: Broker, fresh_database_url: SecretStr
) -> None:
    settings = broker.settings(database_url=fresh_database_url)
    RemovalBrake(settings.postgres_url, INSTANCE, share=0.33, fewest=2).passed(["8", "9"], 2)
    (finding,) = check_suspicions(settings)
    assert finding.level == "yellow"
    assert finding.advice.endswith(f"mastodon-assets sources accept {INSTANCE}")
    with pytest.raises(SettingsError, match=f"suspicious servers: {INSTANCE}"):
        accept_source(settings, "two.example")

    result = CliRunner().invoke(
        app, ["sources", "accept", f"{INSTANCE}/public"], env=as_environment(settings)
    )

    assert result.stdout == f"2 deletes published; {INSTANCE}/public is accepted for a day\n"
    assert {(each["op"], each["id"]) for each in broker.messages()} == {
        ("delete", "8"),
        ("delete", "9"),
    }
    assert check_suspicions(settings) == []


@pytest.mark.usefixtures("loopback")
def test_a_server_that_answers_404_for_each_post_deletes_none(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that was restored from a backup, or is under repair."""
    saved: dict[str, Suspicion] = {}
    known: list[tuple[str, datetime | None]] = [(each, None) for each in IDS]
    monkeypatch.setattr(checkpoint, "read_stored_posts", lambda _url, _instance, _limit: known)
    monkeypatch.setattr(
        removal_brake, "save_suspicion", lambda _url, name, found: saved.update({name: found})
    )
    cursors["odd.example"] = "99"

    def timeline(query: Mapping[str, str]) -> Answer:
        is_newest = not query.keys() & {"min_id", "max_id"}
        return Answer(json.dumps([status("99")]).encode() if is_newest else b"[]")

    routes: dict[str, Route] = {
        TIMELINE: timeline,
        "/api/v1/statuses": Answer(b"[]"),
        "/api/v1/streaming/public": stream(b""),
    }
    with odd_server(routes) as server, log_lines() as lines:
        summary = ingest(
            broker.settings(mastodon_api_base_url=server.base_url, mastodon_access_token="token"),
            max_events=None,
            until_caught_up=True,
            should_stop=lambda: False,
        )

    assert summary.deletes == 0
    assert {name: len(found.status_ids) for name, found in saved.items()} == {"odd.example": 100}
    assert any("mastodon-assets sources accept odd.example" in line for line in lines)


def run_elsewhere(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, newest: str, before: str | None
) -> tuple[dict[str, Suspicion], list[str]]:
    """Read a server that is not on this machine, so that its identity is checked."""
    saved: dict[str, Suspicion] = {}
    monkeypatch.setattr(MastodonClient, "is_on_this_machine", False)
    monkeypatch.setattr(supervisor, "claim_address", lambda *_arguments, **_options: before)
    monkeypatch.setattr(
        removal_brake, "save_suspicion", lambda _url, name, found: saved.update({name: found})
    )
    page = [status(newest)]

    def timeline(query: Mapping[str, str]) -> Answer:
        return Answer(b"[]" if "max_id" in query else json.dumps(page).encode())

    routes: dict[str, Route] = {TIMELINE: timeline}
    with odd_server(routes) as server, log_lines() as lines:
        settings: Any = broker.settings(mastodon_api_base_url=server.base_url)
        try:
            ingest(settings, max_events=1, until_caught_up=True, should_stop=lambda: False)
        except SuspiciousServerError as error:
            return saved, [str(error)]
    return saved, list(lines)


@pytest.mark.usefixtures("loopback")
def test_a_server_that_comes_back_as_another_is_suspicious(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    day = 24 * 3600 * 1000
    now = int(datetime.now(UTC).timestamp() * 1000)
    ids = [snowflake(now - days * day, 1) for days in (0, 3)]
    cursors["odd.example"] = ids[0]

    saved, lines = run_elsewhere(broker, monkeypatch, ids[0], None)
    assert saved == {}

    saved, lines = run_elsewhere(broker, monkeypatch, ids[1], None)
    assert "restored from a backup" in saved["odd.example"].reason
    assert any("mastodon-assets sources accept odd.example" in line for line in lines)

    saved, lines = run_elsewhere(broker, monkeypatch, ids[0], "old.example")
    assert lines[0].endswith("sources accept odd.example")
    assert "was old.example before" in saved["odd.example"].reason
