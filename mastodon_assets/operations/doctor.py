"""What keeps this platform from working, found before it does: one finding a thing looked at.

What belongs here: the checks, which change nothing. How findings are printed stands in
`cli_operations`.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import PlatformError, SettingsError

if TYPE_CHECKING:
    import httpx

    from mastodon_assets.config.servers import Server
    from mastodon_assets.config.sources import Source
    from mastodon_assets.ingest.api.client import MastodonClient

Level = Literal["green", "yellow", "red"]

_GIBIBYTE = 2**30
_LITTLE_DISK, _TOO_LITTLE_DISK = 5 * _GIBIBYTE, 1 * _GIBIBYTE
_OLDEST_POSTGRES = 15
# `event_at` is at most two minutes after receipt: our clock is part of every window.
_ODD_CLOCK, _WRONG_CLOCK = timedelta(seconds=5), timedelta(minutes=2)
_SHOWN_CHARACTERS = 100
# Which of the feeds in `timelines_access` a source is made of.
_FEEDS = {
    "public": ("live_feeds", ("local", "remote")),
    "local": ("live_feeds", ("local",)),
    "remote": ("live_feeds", ("remote",)),
    "hashtag": ("hashtag_feeds", ("local", "remote")),
}
# The scopes are those of Mastodon's API documentation for the three lists.
_FILTERS = {"blocks": "read:blocks", "mutes": "read:mutes", "domain_blocks": "read:blocks"}


@dataclass(frozen=True)
class Finding:
    """`name` is what was looked at, `text` what was found, `advice` what to do where it is bad."""

    name: str
    level: Level
    text: str
    advice: str = ""


def diagnose() -> list[Finding]:
    """Every check, in the order in which the parts depend on each other. Raises nothing of ours."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return [_failed("settings", error)]
    return [
        Finding("settings", "green", "every value is allowed"),
        check_java(),
        check_disk(settings.mastodon_assets_home),
        *check_embedding(settings),
        *(
            check_topic(settings, name)
            for name in (settings.kafka_topic, settings.kafka_errors_topic)
        ),
        *check_postgres(settings),
        *check_mastodon(settings),
    ]


def check_java() -> Finding:
    """Is there a Java that broker and Spark run on."""
    from mastodon_assets.jvm.java import java_home
    from mastodon_assets.jvm.maven import cache_dir

    try:
        return Finding("Java", "green", str(java_home(cache_dir())))
    except PlatformError as error:
        return _failed("Java", error)


def check_disk(home: Path) -> Finding:
    """Is there room where `home` is or will be."""
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / _GIBIBYTE:.1f} GiB free at {existing.absolute()}"
    if free >= _LITTLE_DISK:
        return Finding("disk", "green", text)
    level: Level = "yellow" if free >= _TOO_LITTLE_DISK else "red"
    return Finding("disk", level, text, "make room, or set MASTODON_ASSETS_HOME to another disk")


def check_embedding(settings: Settings) -> list[Finding]:
    """Does the folder hold a model that gives a text its vector; nothing where none is named."""
    if settings.sentiment_embedding_dir is None:
        return []
    from mastodon_assets.sentiment.features.embedding import find_embedding

    try:
        found = find_embedding(settings)
    except PlatformError as error:
        return [_failed("embedding", error)]
    assert found is not None
    return [Finding("embedding", "green", f"{found.fingerprint[:12]} in {found.folder}")]


def check_topic(settings: Settings, topic: str) -> Finding:
    """Does Kafka answer and have `topic`."""
    from mastodon_assets.kafka.topics import read_topic

    name = f"Kafka topic {topic}"
    try:
        state = read_topic(settings, topic, timeout=3)
    except PlatformError as error:
        return _failed(name, error)
    kept = sum(state.end.values()) - sum(state.earliest.values())
    return Finding(name, "green", f"{kept:,} messages in {len(state.end)} partitions")


def check_postgres(settings: Settings) -> list[Finding]:
    """Does PostgreSQL answer, is it new enough, and has it the tables of this version."""
    from mastodon_assets.warehouse.database import transaction
    from mastodon_assets.warehouse.migrate import schema_versions

    try:
        with transaction(settings.postgres_url) as connection:
            server_version = connection.info.server_version
            found, known = schema_versions(connection)
    except PlatformError as error:
        return [_failed("PostgreSQL", error)]
    return [_judge_postgres(server_version), _judge_schema(found, known)]


def check_mastodon(settings: Settings) -> list[Finding]:
    """What each server serves to its token. A server that is not named is no failure."""
    from mastodon_assets.config.servers import servers_of

    try:
        servers = servers_of(settings)
    except PlatformError as error:
        return [_failed("Mastodon servers", error)]
    if not servers:
        advice = "set MASTODON_API_BASE_URL to a server whose rules allow research collection"
        return [Finding("Mastodon server", "yellow", "none is named", advice)]
    if len(servers) == 1:
        return _check_server(servers[0])
    return [
        replace(finding, name=f"{server.address} {finding.name}")
        for server in servers
        for finding in _check_server(server)
    ]


def _check_server(server: "Server") -> list[Finding]:
    from mastodon_assets.ingest.api.client import MastodonClient

    try:
        client = MastodonClient(server.base_url, server.token)
        asked_at = datetime.now(UTC)
        answer = _instance_answer(client)
        clock = judge_clock(answer.headers.get("Date"), asked_at, datetime.now(UTC))
    except PlatformError as error:
        return [_failed("Mastodon server", error)]
    document = _json_object(answer)
    if document is None:
        advice = "is MASTODON_API_BASE_URL a Mastodon server?"
        text = f"no instance document (status {answer.status_code})"
        return [Finding("Mastodon server", "red", text, advice)]
    findings = [_judge_instance(document), clock, judge_feeds(document, server.sources)]
    checks: dict[str, Callable[[MastodonClient], Finding]] = {
        _timeline_name(source): partial(_check_timeline, source) for source in server.sources
    }
    checks["streaming"] = _check_streaming
    if server.token is None:
        advice = "set MASTODON_ACCESS_TOKEN to a user token with the scope read:statuses"
        findings.append(Finding("token", "red", "none is set, and streams want one", advice))
    else:
        checks |= {"token": _check_token, "filters": _check_filters}
    return findings + [_tried(name, check, client) for name, check in checks.items()]


def judge_clock(date: str | None, asked_at: datetime, answered_at: datetime) -> Finding:
    """Our clock against the server's `Date`, which has whole seconds."""
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return Finding(
            "clock", "yellow", "the server tells no time", "compare it with a time server"
        )
    told = told.replace(tzinfo=told.tzinfo or UTC)
    apart = max(asked_at - told - timedelta(seconds=1), told - answered_at, timedelta(0))
    if apart < _ODD_CLOCK:
        return Finding("clock", "green", "agrees with the server's")
    text = f"{apart.total_seconds():.0f} s apart from the server's"
    level: Level = "red" if apart >= _WRONG_CLOCK else "yellow"
    return Finding("clock", level, text, "set this machine's clock by NTP; windows depend on it")


def judge_feeds(document: Mapping[str, Any], sources: "Iterable[Source]") -> Finding:
    """What `configuration.timelines_access` says of `sources`; servers since 4.5 have it."""
    access = _mapping(_mapping(document.get("configuration")).get("timelines_access"))
    told: dict[str, str] = {}
    silent: list[str] = []
    partial: list[str] = []
    for kind in dict.fromkeys(source.kind for source in sources):
        group, parts = _FEEDS[kind]
        feeds = _mapping(access.get(group))
        known = {part: _text(feeds[part]) for part in parts if part in feeds}
        told |= {f"{group.replace('_', ' ')} {part}": text for part, text in known.items()}
        count = list(known.values()).count("disabled")
        if count:
            (silent if count == len(parts) else partial).append(kind)
    if not told:
        return Finding("feeds", "green", "the server names no limits (it tells since 4.5)")
    text = ", ".join(f"{name} {who}" for name, who in told.items())
    if silent:
        names = ", ".join(silent)
        advice = f"choose another server, or leave {names} out of MASTODON_SOURCES"
        return Finding("feeds", "red", f"{text}: only deletes arrive by {names}", advice)
    if partial:
        advice = "such posts do not arrive; choose another server if they matter"
        return Finding("feeds", "yellow", text, advice)
    return Finding("feeds", "green", text)


def _judge_postgres(server_version: int) -> Finding:
    # 150004 is 15.4.
    major, minor = divmod(server_version, 10_000)
    if major >= _OLDEST_POSTGRES:
        return Finding("PostgreSQL", "green", f"version {major}.{minor}")
    advice = f"use PostgreSQL {_OLDEST_POSTGRES} or newer"
    return Finding("PostgreSQL", "red", f"version {major}.{minor} is too old", advice)


def _judge_schema(found: str | None, known: list[str]) -> Finding:
    if found == known[0]:
        return Finding("tables", "green", f"schema {found}")
    if found is None or found in known:
        text = f"schema {found or 'none'}, this version has {known[0]}"
        return Finding("tables", "yellow", text, "run: mastodon-assets up")
    text = f"schema {found} is of a newer version"
    return Finding("tables", "red", text, "upgrade mastodon-assets")


def _instance_answer(client: "MastodonClient") -> "httpx.Response":
    """Version 2 of the instance document, else version 1 (before 4.0)."""
    answer = client.ask("/api/v2/instance")
    return answer if answer.is_success else client.ask("/api/v1/instance")


def _judge_instance(document: Mapping[str, Any]) -> Finding:
    domain = _text(document.get("domain") or document.get("uri"))
    return Finding(
        "Mastodon server", "green", f"{domain}, version {_text(document.get('version'))}"
    )


def _timeline_name(source: "Source") -> str:
    return "timeline" if source.kind == "public" else f"timeline {source.name}"


def _check_timeline(source: "Source", client: "MastodonClient") -> Finding:
    name = _timeline_name(source)
    path = source.timeline_path
    answer = client.ask(f"/api/v1/timelines/{path}{'&' if '?' in path else '?'}limit=1")
    posts = _json(answer)
    if not answer.is_success or not isinstance(posts, list):
        text = f"the timeline is refused (status {answer.status_code})"
        advice = (
            "gaps cannot be filled; set MASTODON_ACCESS_TOKEN to a user token with read:statuses"
        )
        return Finding(name, "red", text, advice)
    if not posts:
        advice = "a server with its feeds disabled answers like this; look at it in a browser"
        return Finding(name, "yellow", "the timeline is empty", advice)
    return Finding(name, "green", "the timeline is served")


def _check_streaming(client: "MastodonClient") -> Finding:
    answer = client.ask_streaming_health()
    if answer.is_success and answer.text.strip() == "OK":
        return Finding("streaming", "green", "the streaming server is well")
    text = f"the streaming server's health check answers {answer.status_code}"
    return Finding("streaming", "red", text, "ask the server's admins, or try again later")


def _check_token(client: "MastodonClient") -> Finding:
    answer = client.ask("/api/v1/accounts/verify_credentials")
    account = _json_object(answer)
    if answer.is_success and account is not None:
        return Finding("token", "green", f"valid, of the account {_text(account.get('acct'))}")
    if answer.status_code == 403:
        text = "accepted, but its scopes do not let it tell its account"
        return Finding("token", "yellow", text, "add the scope read:accounts to have it checked")
    text = f"not accepted as a user's (status {answer.status_code})"
    advice = "set MASTODON_ACCESS_TOKEN to a user token with the scope read:statuses"
    return Finding("token", "red", text, advice)


def _check_filters(client: "MastodonClient") -> Finding:
    """Blocks and mutes of the token's account are left out of what its stream carries."""
    counts: dict[str, int | None] = {}
    for name in _FILTERS:
        answer = client.ask(f"/api/v1/{name}?limit=80")
        if answer.status_code == 401:
            return Finding("filters", "yellow", "unknown", "set a token that is accepted")
        listed = _json(answer)
        counts[name] = len(listed) if answer.is_success and isinstance(listed, list) else None
    text = ", ".join(
        f"{name.replace('_', ' ')} {'unknown' if count is None else count}"
        for name, count in counts.items()
    )
    if any(counts.values()):
        advice = "they are left out of the stream; remove them, or use an account of its own"
        return Finding("filters", "yellow", text, advice)
    unknown = dict.fromkeys(_FILTERS[name] for name, count in counts.items() if count is None)
    if unknown:
        advice = f"add {' and '.join(unknown)} to the token to have them checked"
        return Finding("filters", "yellow", text, advice)
    languages = "languages chosen in its preferences filter too, and no API tells them"
    return Finding("filters", "green", f"{text}; {languages}")


def _tried(
    name: str, check: "Callable[[MastodonClient], Finding]", client: "MastodonClient"
) -> Finding:
    try:
        return check(client)
    except PlatformError as error:
        return _failed(name, error)


def _failed(name: str, error: PlatformError) -> Finding:
    """Our errors say what is wrong, then, behind a semicolon, what to do."""
    text, _, advice = " ".join(str(error).split()).partition("; ")
    return Finding(name, "red", text, advice)


def _json(answer: "httpx.Response") -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _json_object(answer: "httpx.Response") -> Mapping[str, Any] | None:
    document = _json(answer)
    return document if answer.is_success and isinstance(document, Mapping) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """What a server says, in a length that fits in a line."""
    return str(value)[:_SHOWN_CHARACTERS] if isinstance(value, str | int) else "unknown"
