import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from mastodon_assets.cli.app import app
from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.config.sources import parse_sources
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.operations import doctor
from mastodon_assets.operations.doctor import (
    Finding,
    check_disk,
    check_mastodon,
    check_postgres,
    check_topic,
    judge_clock,
    judge_feeds,
)
from mastodon_assets.simulator.faults import Refusal
from mastodon_assets.simulator.personalities import PERSONALITIES
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.odd_server import Answer, odd_server, stream
from mastodon_assets_tests.support.ports import free_port

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TOKEN = "the-secret-token"


def at_server(base_url: str, token: str | None = TOKEN) -> dict[str, Finding]:
    settings = load_settings(
        mastodon_api_base_url=base_url, mastodon_access_token=token and SecretStr(token)
    )
    return {finding.name: finding for finding in check_mastodon(settings)}


def levels(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.level for name, finding in findings.items()}


@pytest.mark.usefixtures("loopback")
def test_every_server_and_every_source_is_looked_at() -> None:
    def refuse(path: str) -> Refusal | None:
        return Refusal(403) if path.startswith("/api/v1/timelines/tag") else None

    with (
        running(synthetic_source(toots=60, days=1, seed=1)) as well,
        running(synthetic_source(toots=60, days=1, seed=1), refuse=refuse) as refuses,
    ):
        names = [server.base_url.removeprefix("http://") for server in (well, refuses)]
        settings = load_settings(
            mastodon_api_base_url=f"{well.base_url},{refuses.base_url}",
            mastodon_sources=f"local,{names[1]}/#tea",
            mastodon_access_token=f"{names[0]}={TOKEN},{names[1]}={refuses.token}",
        )
        found = {finding.name: finding for finding in check_mastodon(settings)}

    assert found[f"{names[0]} token"].level == "red"
    assert found[f"{names[1]} token"].level == "green"
    assert found[f"{names[1]} timeline local"].level == "green"
    assert found[f"{names[1]} timeline hashtag:tea"].level == "red"
    assert f"{names[0]} timeline hashtag:tea" not in found
    assert not any(secret in str(found) for secret in (TOKEN, well.token, refuses.token))


def test_settings_that_do_not_fit_together_are_a_finding() -> None:
    settings = load_settings(
        mastodon_api_base_url="https://one.example", mastodon_sources="two.example/local"
    )
    (finding,) = check_mastodon(settings)
    assert (finding.name, finding.level) == ("Mastodon servers", "red")
    assert finding.text.startswith("MASTODON_SOURCES: two.example is not in MASTODON_API_BASE_URL")


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`run("--json", NAME=value)`: the command, with the stack and an errors topic that exists."""
    topic = f"errors_of_{settings.kafka_topic}"
    create_topics(settings.kafka_access, [topic])
    given = settings.model_copy(update={"kafka_errors_topic": topic})
    for name, value in as_environment(given).items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(
            app, ["doctor", *arguments], env={"COLUMNS": "200", **environment}
        )

    return command


def test_a_platform_that_works_has_no_red_finding_and_says_so_by_its_exit_status(
    run: Callable[..., Result],
) -> None:
    with running(synthetic_source(toots=5, days=1, seed=1)) as server:
        result = run(
            "--json", MASTODON_API_BASE_URL=server.base_url, MASTODON_ACCESS_TOKEN=server.token
        )

    found = {finding["name"]: finding["level"] for finding in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert "red" not in found.values()
    assert {name for name in found if not name.startswith("Kafka")} == {
        "settings",
        "Java",
        "disk",
        "growth",
        "PostgreSQL",
        "tables",
        "Mastodon server",
        "software",
        "clock",
        "feeds",
        "timeline",
        "streaming",
        "token",
        "filters",
    }
    assert server.token not in result.stdout


def test_a_red_finding_is_exit_status_1_and_a_word_with_the_colour(
    run: Callable[..., Result],
) -> None:
    result = run(KAFKA_TOPIC="no_such_topic")

    assert result.exit_code == 1
    assert "red    Kafka topic no_such_topic: " in result.stdout
    assert "run: mastodon-assets up" in result.stdout
    assert "yellow Mastodon server: none configured; set MASTODON_API_BASE_URL" in result.stdout


def test_a_setting_that_is_not_allowed_is_a_finding(run: Callable[..., Result]) -> None:
    result = run("--json", NEUTRAL_LOW="high")

    (finding,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert finding["level"] == "red"
    assert "NEUTRAL_LOW" in finding["text"]


@pytest.mark.usefixtures("loopback")
def test_services_that_are_down_are_red_each(tmp_path: Path) -> None:
    port = free_port()
    settings = load_settings(
        mastodon_assets_home=tmp_path,
        kafka_bootstrap_servers=f"127.0.0.1:{port}",
        database_url=f"postgresql://a:hidden@127.0.0.1:{port}/a",
        mastodon_api_base_url=f"http://127.0.0.1:{port}",
    )

    findings = [
        check_topic(settings, "mastodon_stream"),
        *check_postgres(settings),
        *check_mastodon(settings),
    ]

    assert [finding.level for finding in findings] == ["red"] * 3
    assert not any("hidden" in str(finding) for finding in findings)


@pytest.mark.parametrize(
    ("statement", "level", "advice"),
    [
        ("DROP TABLE masto.schema_version", "yellow", "run: mastodon-assets up"),
        ("UPDATE masto.schema_version SET version_num = '9999'", "red", "upgrade mastodon-assets"),
    ],
)
def test_a_schema_of_another_version_is_reported(
    settings: Settings, statement: str, level: str, advice: str
) -> None:
    with transaction(settings.postgres_url) as connection:
        connection.execute(statement.encode())

    postgres, tables = check_postgres(settings)

    assert postgres.level == "green"
    assert (tables.level, tables.advice) == (level, advice)


@pytest.mark.parametrize(
    ("server_version", "level"), [(140_019, "red"), (150_000, "green"), (180_001, "green")]
)
def test_postgresql_must_be_15_or_newer(server_version: int, level: str) -> None:
    assert doctor._judge_postgres(server_version).level == level


@pytest.mark.parametrize(("free", "level"), [(10, "green"), (3, "yellow"), (0.5, "red")])
def test_a_disk_that_fills_is_reported_before_it_is_full(
    free: float, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)

    assert check_disk(tmp_path / "not" / "there" / "yet").level == level


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(0, "green"), (3, "green"), (-3, "green"), (30, "yellow"), (-30, "yellow"), (600, "red")],
)
def test_a_clock_apart_from_the_servers_is_reported(seconds: int, level: str) -> None:
    date = format_datetime(NOON + timedelta(seconds=seconds), usegmt=True)

    assert judge_clock(date, NOON, NOON + timedelta(milliseconds=100)).level == level


@pytest.mark.parametrize("date", [None, "", "soon", f"Mon, 01 Jan 2020 00:00:00 +{'9' * 13}"])
def test_a_server_without_a_clock_is_reported(date: str | None) -> None:
    assert judge_clock(date, NOON, NOON).level == "yellow"


def feeds_document(group: str = "live_feeds", **feeds: Any) -> dict[str, Any]:
    return {"configuration": {"timelines_access": {group: feeds}}}


OFF, ON = "disabled", "public"


@pytest.mark.parametrize(
    ("document", "sources", "level"),
    [
        (feeds_document(local=ON, remote="authenticated"), "public", "green"),
        (feeds_document(local=ON, remote=OFF), "public", "yellow"),
        (feeds_document(local=ON, remote=OFF), "local", "green"),
        (feeds_document(local=ON, remote=OFF), "local,remote", "red"),
        (feeds_document(local=OFF, remote=OFF), "public", "red"),
        (feeds_document(local=OFF, remote=OFF), "#tea", "green"),
        (feeds_document("hashtag_feeds", local=OFF, remote=OFF), "public,#tea", "red"),
        (feeds_document("hashtag_feeds", local=ON, remote=OFF), "#tea,#coffee", "yellow"),
        ({}, "public", "green"),
        ({"configuration": "none"}, "public", "green"),
        ({"configuration": {"timelines_access": [1]}}, "public", "green"),
        (feeds_document(local=["odd"]), "public", "green"),
    ],
)
def test_feeds_that_the_server_does_not_serve_are_reported_if_a_source_needs_them(
    document: dict[str, Any], sources: str, level: str
) -> None:
    wanted = [each.source for each in parse_sources(sources)]
    assert judge_feeds(document, wanted).level == level


@pytest.mark.usefixtures("loopback")
def test_what_other_software_does_not_say_is_a_finding() -> None:
    page = [{"account": {"acct": "ada@odd.example"}}, {"account": {"acct": "ben@far.example"}}]
    found = {}
    for name in ("takahe", "snac", "another"):
        nodeinfo = json.dumps({"software": {"name": name}}).encode()
        routes = {
            "/.well-known/nodeinfo": Answer(b'{"links":[{"href":"https://odd.example/ni"}]}'),
            "/ni": Answer(nodeinfo),
            "/api/v1/timelines/public": Answer(json.dumps(page).encode()),
        }
        with odd_server(routes) as server:
            settings = load_settings(
                mastodon_api_base_url=server.base_url,
                mastodon_sources="local",
                mastodon_consent="opt-in",
            )
            findings = check_mastodon(settings)
        found[name] = {(each.level, each.text) for each in findings if "software" in each.name} | {
            (each.level, each.text) for each in findings if each.name == "timeline local"
        }

    takahe, snac = (sorted(level for level, _ in found[name]) for name in ("takahe", "snac"))
    assert takahe == ["green", "red", "yellow"]
    assert snac == ["red", "yellow", "yellow"]
    assert ("yellow", "the server ignores `local`: 1 of 2 posts are others") in found["snac"]
    assert ("green", "another") in found["another"]


@pytest.mark.parametrize(
    ("name", "level", "text", "software"),
    [
        ("mastodon-4.6", "green", "server-sent events will be used; the streaming server is", ""),
        ("mastodon-4.3", "green", "server-sent events will be used; the streaming server is", ""),
        ("gotosocial", "green", "a WebSocket will be used; there is no health check", "`noindex`"),
        ("takahe", "yellow", "polling the timeline will be used: 127.0.0.1 has no", "look public"),
        ("snac", "yellow", "polling the timeline will be used: 127.0.0.1 has no", "not said"),
    ],
)
@pytest.mark.usefixtures("loopback")
def test_the_reader_that_will_be_used_and_what_cannot_be_known_are_named(
    name: str, level: str, text: str, software: str
) -> None:
    source = synthetic_source(toots=5, days=1, seed=1)
    with running(source, token=TOKEN, personality=PERSONALITIES[name]) as server:
        findings = at_server(server.base_url)

    assert findings["streaming"].level == level
    assert findings["streaming"].text.startswith(text)
    assert software in findings["software"].text
    assert ("languages" in findings["filters"].text) == name.startswith("mastodon")
    is_told = name in ("takahe", "snac")
    assert findings["software"].level == ("yellow" if is_told else "green")


@pytest.mark.parametrize(("name", "status_code"), [("gotosocial", 401), ("takahe", 400)])
@pytest.mark.usefixtures("loopback")
def test_a_server_that_refuses_the_token_everywhere_is_not_taken_for_something_else(
    name: str, status_code: int
) -> None:
    source = synthetic_source(toots=5, days=1, seed=1)
    with running(source, personality=PERSONALITIES[name]) as server:
        (finding,) = at_server(server.base_url).values()

    assert (finding.level, finding.name) == ("red", "Mastodon server")
    assert finding.text == f"127.0.0.1 answered {status_code}: it does not accept the token"
    assert finding.advice.startswith("set MASTODON_ACCESS_TOKEN")


@pytest.mark.usefixtures("loopback")
def test_a_wrong_token_is_red_and_not_shown() -> None:
    with running(synthetic_source(toots=5, days=1, seed=1)) as server:
        findings = at_server(server.base_url, "another-token")

    assert findings["token"].level == "red"
    assert "scope read:statuses" in findings["token"].advice
    assert findings["filters"].advice == "set a valid token"
    assert "another-token" not in str(findings)


@pytest.mark.usefixtures("loopback")
def test_a_server_without_a_token_is_red_because_streams_want_one() -> None:
    with running(synthetic_source(toots=5, days=1, seed=1)) as server:
        findings = at_server(server.base_url, None)

    assert levels(findings)["token"] == "red"
    assert "filters" not in findings


@pytest.mark.usefixtures("loopback")
def test_what_filters_the_stream_is_yellow() -> None:
    routes = {
        "/api/v2/instance": Answer(b'{"domain":"odd.example","version":"4.5.0"}'),
        "/api/v1/timelines/public": Answer(b"[]"),
        "/api/v1/streaming/health": Answer(b"OK"),
        "/api/v1/streaming/public": stream(b""),
        "/api/v1/accounts/verify_credentials": Answer(b'{"acct":"ada"}'),
        "/api/v1/blocks": Answer(b"[]"),
        "/api/v1/mutes": Answer(b'[{"id":"1"},{"id":"2"}]'),
        "/api/v1/domain_blocks": Answer(b"{}", 403),
    }
    with odd_server(routes) as server:
        findings = at_server(server.base_url)
        paths = [path.partition("?")[0] for path, _ in server.requests]

    assert [paths.count(f"/api/v1/{name}") for name in ("blocks", "mutes")] == [1, 1]
    assert findings["Mastodon server"].text == "odd.example, version 4.5.0"
    assert findings["filters"].text == "blocks 0, mutes 2, domain blocks unknown"
    assert levels(findings) == {
        "Mastodon server": "green",
        "software": "green",
        "clock": "green",
        "feeds": "green",
        "timeline": "yellow",
        "streaming": "green",
        "token": "green",
        "filters": "yellow",
    }


@pytest.mark.usefixtures("loopback")
def test_a_token_of_the_scope_for_statuses_alone_is_yellow_with_what_to_add() -> None:
    routes = {
        "/api/v2/instance": Answer(b"{}", 404),
        "/api/v1/instance": Answer(b'{"uri":"old.example","version":"3.5.3"}'),
        "/api/v1/timelines/public": Answer(b'[{"id":"1"}]'),
        **{
            f"/api/v1/{name}": Answer(b'{"error":"outside the authorized scopes"}', 403)
            for name in ("accounts/verify_credentials", "blocks", "mutes", "domain_blocks")
        },
    }
    with odd_server(routes) as server:
        findings = at_server(server.base_url)

    assert findings["Mastodon server"].text == "old.example, version 3.5.3"
    assert findings["token"].advice.startswith("add the scope read:accounts")
    assert "read:blocks and read:mutes" in findings["filters"].advice
    assert levels(findings)["streaming"] == "yellow"
    assert findings["streaming"].text.startswith("polling the timeline will be used")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"domain":' + b"[" * 100_000])
@pytest.mark.usefixtures("loopback")
def test_what_is_no_mastodon_server_is_one_red_finding(body: bytes) -> None:
    with odd_server({"/api/v2/instance": Answer(body)}) as server:
        findings = at_server(server.base_url)

    assert levels(findings) == {"Mastodon server": "red"}


def test_a_token_would_not_be_sent_in_the_clear() -> None:
    findings = at_server("http://mastodon.example")

    assert levels(findings) == {"Mastodon server": "red"}
    assert findings["Mastodon server"].advice == "use https://"


def test_what_a_server_says_of_itself_moves_no_terminal(run: Callable[..., Result]) -> None:
    body = json.dumps({"domain": "odd.example", "version": "\x1b[2J" + "4" * 1000}).encode()
    with odd_server({"/api/v2/instance": Answer(body)}) as server:
        result = run(MASTODON_API_BASE_URL=server.base_url)

    assert "\\x1b[2J444" in result.stdout
    assert "\x1b[2J" not in result.stdout
    assert "4" * 200 not in result.stdout
