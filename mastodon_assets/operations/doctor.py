"""The diagnosis of an installation: one finding per thing checked.

What belongs here: the checks, which change nothing. Printing the findings is in `cli`.
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
_FEW_DAYS = 30
_LOW_DISK, _FULL_DISK = 5 * _GIBIBYTE, 1 * _GIBIBYTE
_OLDEST_POSTGRES = 15
# `event_at` is at most two minutes after receipt, so our clock affects every window.
_INEXACT_CLOCK, _WRONG_CLOCK = timedelta(seconds=5), timedelta(minutes=2)
_SHOWN_CHARACTERS = 100
# The feeds in `timelines_access` that each kind of source consists of.
_FEEDS = {
    "public": ("live_feeds", ("local", "remote")),
    "local": ("live_feeds", ("local",)),
    "remote": ("live_feeds", ("remote",)),
    "hashtag": ("hashtag_feeds", ("local", "remote")),
}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: What was checked.
        level: `green` is well, `yellow` works but needs attention, `red` does not work.
        text: What was found.
        advice: What to do unless it is green.
    """

    name: str
    level: Level
    text: str
    advice: str = ""


def diagnose() -> list[Finding]:
    """Run every check, in the order in which the parts depend on each other."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return [_failed("settings", error)]
    return [
        Finding("settings", "green", "all values are valid"),
        check_java(),
        check_disk(settings.mastodon_assets_home),
        check_growth(settings),
        *check_embedding(settings),
        *(
            check_topic(settings, name)
            for name in (settings.kafka_topic, settings.kafka_errors_topic)
        ),
        *check_postgres(settings),
        *check_suspicions(settings),
        *check_mastodon(settings),
    ]


def check_java() -> Finding:
    """Check that there is a Java for the broker and Spark."""
    from mastodon_assets.jvm.java import java_home
    from mastodon_assets.jvm.maven import cache_dir

    try:
        return Finding("Java", "green", str(java_home(cache_dir())))
    except PlatformError as error:
        return _failed("Java", error)


def check_disk(home: Path) -> Finding:
    """Check that the disk of the state folder `home` has room."""
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / _GIBIBYTE:.1f} GiB free at {existing.absolute()}"
    if free >= _LOW_DISK:
        return Finding("disk", "green", text)
    level: Level = "yellow" if free >= _FULL_DISK else "red"
    return Finding(
        "disk",
        level,
        text,
        "free disk space, or set MASTODON_ASSETS_HOME to a folder on another disk",
    )


def check_growth(settings: Settings) -> Finding:
    """Check how much space the platform takes, and for how many days the disk is large enough."""
    from mastodon_assets.orchestration.disk_usage import read_disk_usage

    usage = read_disk_usage(settings)
    if usage.days_until_full is None or usage.days_until_full >= _FEW_DAYS:
        return Finding("growth", "green", str(usage))
    advice = "free disk space, or lower the settings *_KEEP_DAYS"
    return Finding("growth", "yellow", str(usage), advice)


def check_embedding(settings: Settings) -> list[Finding]:
    """Check that the encoder that the settings name, if any, gives vectors."""
    if settings.sentiment_encoder == "ngrams" and settings.sentiment_embedding_dir is None:
        return []
    from mastodon_assets.sentiment.features.embedding import find_embedding

    try:
        found = find_embedding(settings)
        assert found is not None
        found.load().vectors(["a good day"])
    except PlatformError as error:
        return [_failed("embedding", error)]
    return [Finding("embedding", "green", f"{found.source} ({found.fingerprint[:12]})")]


def check_topic(settings: Settings, topic: str) -> Finding:
    """Check that Kafka answers and has `topic`."""
    from mastodon_assets.kafka.topics import read_topic

    name = f"Kafka topic {topic}"
    try:
        state = read_topic(settings, topic, timeout=3)
    except PlatformError as error:
        return _failed(name, error)
    kept = sum(state.end.values()) - sum(state.earliest.values())
    return Finding(name, "green", f"{kept:,} messages in {len(state.end)} partitions")


def check_postgres(settings: Settings) -> list[Finding]:
    """Check that PostgreSQL answers, is new enough and has the tables of this version."""
    from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction
    from mastodon_assets.warehouse.migrate import schema_versions

    try:
        with transaction(settings.postgres_url, max_seconds=PERSON_SECONDS) as connection:
            server_version = connection.info.server_version
            found, known = schema_versions(connection)
    except PlatformError as error:
        return [_failed("PostgreSQL", error)]
    return [_judge_postgres(server_version), _judge_schema(found, known)]


def check_suspicions(settings: Settings) -> list[Finding]:
    """Check whether removals of a server wait for a person."""
    from mastodon_assets.ingest.removal_brake import read_suspicious

    try:
        suspicious = read_suspicious(settings.postgres_url)
    except PlatformError:
        # PostgreSQL has a finding of its own.
        return []
    return [
        Finding(
            f"{instance} suspicious",
            "yellow",
            suspicion.reason,
            f"look at the server; if it is right, run: mastodon-assets sources accept {instance}",
        )
        for instance, suspicion in suspicious.items()
    ]


def check_mastodon(settings: Settings) -> list[Finding]:
    """Check what each configured server serves to its token."""
    from mastodon_assets.config.servers import servers_of

    try:
        servers = servers_of(settings)
    except PlatformError as error:
        return [_failed("Mastodon servers", error)]
    if not servers:
        advice = "set MASTODON_API_BASE_URL to a server whose rules allow research collection"
        return [Finding("Mastodon server", "yellow", "none configured", advice)]
    if len(servers) == 1:
        return _check_server(settings, servers[0])
    return [
        replace(finding, name=f"{server.address} {finding.name}")
        for server in servers
        for finding in _check_server(settings, server)
    ]


def _check_contact(settings: Settings) -> Finding:
    if settings.mastodon_contact is None:
        advice = "set MASTODON_CONTACT, so that a server's administrators can ask before they block"
        return Finding("contact", "yellow", "the User-Agent names nobody", advice)
    return Finding("contact", "green", f"the User-Agent names {settings.mastodon_contact}")


def _check_server(settings: Settings, server: "Server") -> list[Finding]:
    from mastodon_assets.ingest.api.client import MastodonClient, client_of

    try:
        client = client_of(settings, server)
        asked_at = datetime.now(UTC)
        answer = _instance_answer(client)
        clock = judge_clock(answer.headers.get("Date"), asked_at, datetime.now(UTC))
    except PlatformError as error:
        return [_failed("Mastodon server", error)]
    document = _json_object(answer)
    if document is None:
        advice = "check that MASTODON_API_BASE_URL is a Mastodon server"
        text = "the server sent something else than an instance document"
        return [Finding("Mastodon server", "red", text, advice)]
    findings = [_judge_instance(document), clock, judge_feeds(document, server.sources)]
    findings += _check_software(settings, client)
    if not client.is_on_this_machine:
        findings.append(_check_contact(settings))
    checks: dict[str, Callable[[MastodonClient], Finding]] = {
        _timeline_name(source): partial(_check_timeline, source) for source in server.sources
    }
    checks["streaming"] = _check_streaming
    if server.token is None:
        advice = "set MASTODON_ACCESS_TOKEN to a user token with the scope read:statuses"
        findings.append(
            Finding("token", "red", "none configured, but streaming requires one", advice)
        )
    else:
        checks |= {"token": _check_token, "filters": _check_filters}
    return findings + [_run_check(name, check, client) for name, check in checks.items()]


def judge_clock(date: str | None, asked_at: datetime, answered_at: datetime) -> Finding:
    """Compare our clock with the server's `Date` header, which has whole seconds."""
    try:
        server_time = parsedate_to_datetime(date or "")
    except (ValueError, OverflowError):
        return Finding(
            "clock", "yellow", "the server sends no time", "synchronize this machine's clock by NTP"
        )
    server_time = server_time.replace(tzinfo=server_time.tzinfo or UTC)
    difference = max(
        asked_at - server_time - timedelta(seconds=1), server_time - answered_at, timedelta(0)
    )
    if difference < _INEXACT_CLOCK:
        return Finding("clock", "green", "agrees with the server's clock")
    text = f"differs from the server's clock by {difference.total_seconds():.0f} s"
    level: Level = "red" if difference >= _WRONG_CLOCK else "yellow"
    advice = "synchronize this machine's clock by NTP, because windows depend on it"
    return Finding("clock", level, text, advice)


def judge_feeds(document: Mapping[str, Any], sources: "Iterable[Source]") -> Finding:
    """Check `configuration.timelines_access`, which servers have since 4.5, for the sources."""
    access = _mapping(_mapping(document.get("configuration")).get("timelines_access"))
    allowed: dict[str, str] = {}
    disabled: list[str] = []
    incomplete: list[str] = []
    for kind in dict.fromkeys(source.kind for source in sources):
        group, parts = _FEEDS[kind]
        feeds = _mapping(access.get(group))
        known = {part: _text(feeds[part]) for part in parts if part in feeds}
        allowed |= {f"{group.replace('_', ' ')} {part}": text for part, text in known.items()}
        count = list(known.values()).count("disabled")
        if count:
            (disabled if count == len(parts) else incomplete).append(kind)
    if not allowed:
        text = "the server reports no limits (Mastodon before 4.5 and other software never do)"
        return Finding("feeds", "green", text)
    text = ", ".join(f"{name} {who}" for name, who in allowed.items())
    if disabled:
        names = ", ".join(disabled)
        advice = f"choose another server, or remove {names} from MASTODON_SOURCES"
        return Finding("feeds", "red", f"{text}: {names} delivers only deletes", advice)
    if incomplete:
        advice = "posts of disabled feeds do not arrive; choose another server if you need them"
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
        text = f"schema {found or 'none'}, but this version needs {known[0]}"
        return Finding("tables", "yellow", text, "run: mastodon-assets up")
    text = f"schema {found} belongs to a newer version"
    return Finding("tables", "red", text, "upgrade mastodon-assets")


def _instance_answer(client: "MastodonClient") -> "httpx.Response":
    """Get version 2 of the instance document, or version 1 from servers before 4.0.

    Raises:
        PlatformError: The server has neither, or refuses the token on every address (Takahe).
    """
    answer = client.ask("/api/v2/instance")
    return answer if answer.is_success else client.get("/api/v1/instance")


def _judge_instance(document: Mapping[str, Any]) -> Finding:
    domain = _text(document.get("domain") or document.get("uri"))
    return Finding(
        "Mastodon server", "green", f"{domain}, version {_text(document.get('version'))}"
    )


def _check_software(settings: Settings, client: "MastodonClient") -> list[Finding]:
    """Check what the server's software cannot say of posts and accounts."""
    try:
        software = client.software()
    except PlatformError as error:
        return [_failed("software", error)]
    name = software.name or "unknown, the server does not name it"
    findings = []
    if settings.mastodon_consent == "opt-in" and not software.says_indexable:
        text = f"{name} does not say which accounts agree to be indexed, so nothing is published"
        advice = "set MASTODON_CONSENT=respect, or choose another server"
        findings.append(Finding("software", "red", text, advice))
    if software.hides_local_only:
        text = f"{name} does not say which posts are for its own members only: they look public"
        advice = "ask the server's administrators whether members use them; if so, do not read it"
        findings.append(Finding("software", "yellow", text, advice))
    if software.constants:
        constants = ", ".join(sorted(software.constants))
        text = f"{name} sends the same {constants} for everybody, which are read as not said"
        advice = (
            "nothing to do, but posts have no declared language, and only tags such as #nobot"
            " refuse consent"
        )
        findings.append(Finding("software", "yellow", text, advice))
    if not (findings or software.says_indexable):
        name += "; its accounts cannot say `noindex`, only tags such as #nobot refuse consent"
    return findings or [Finding("software", "green", name)]


def _timeline_name(source: "Source") -> str:
    return "timeline" if source.kind == "public" else f"timeline {source.name}"


def _check_timeline(source: "Source", client: "MastodonClient") -> Finding:
    from mastodon_assets.ingest.api.transport import json_of

    name = _timeline_name(source)
    path = source.timeline_path
    answer = client.ask(f"/api/v1/timelines/{path}{'&' if '?' in path else '?'}limit=40")
    posts = json_of(answer)
    if not answer.is_success or not isinstance(posts, list):
        text = f"the server refuses the timeline (status {answer.status_code}), so that gaps stay"
        advice = "set MASTODON_ACCESS_TOKEN to a user token with the scope read:statuses"
        return Finding(name, "red", text, advice)
    if not posts:
        advice = "the server may have disabled this feed; compare with its page in a browser"
        return Finding(name, "yellow", "the timeline is empty", advice)
    software, instance = client.software(), client.instance_domain()
    others = sum(software.lists_wrongly(post, source.kind, instance) for post in posts)
    if others:
        text = f"the server ignores `{source.kind}`: {others} of {len(posts)} posts are others"
        return Finding(name, "yellow", text, "nothing to do: they are dropped, but cost requests")
    return Finding(name, "green", "the server serves the timeline")


def _check_streaming(client: "MastodonClient") -> Finding:
    """Name the reader that `ingest` will use; other software than Mastodon has no health check."""
    from mastodon_assets.ingest.api.errors import NoStreamError

    try:
        with client.open_events() as events:
            kind = events.kind
    except NoStreamError as error:
        advice = (
            "nothing to do, but deletes are seen late: stored posts of the last two days are asked"
            " for again within the rate limits"
            if client.has_token
            else "set MASTODON_ACCESS_TOKEN, in case the server has streams for a token"
        )
        return Finding("streaming", "yellow", f"polling the timeline will be used: {error}", advice)
    answer = client.ask_streaming_health()
    is_healthy = answer.is_success and answer.text.strip() == "OK"
    health = "the streaming server is healthy" if is_healthy else "there is no health check"
    return Finding("streaming", "green", f"{kind} will be used; {health}")


def _check_token(client: "MastodonClient") -> Finding:
    answer = client.ask("/api/v1/accounts/verify_credentials")
    account = _json_object(answer)
    if answer.is_success and account is not None:
        return Finding("token", "green", f"valid for the account {_text(account.get('acct'))}")
    if answer.status_code == 403:
        text = "accepted, but without the scope to read its account"
        return Finding("token", "yellow", text, "add the scope read:accounts to have it checked")
    text = f"not accepted as a user token (status {answer.status_code})"
    advice = "set MASTODON_ACCESS_TOKEN to a user token with the scope read:statuses"
    return Finding("token", "red", text, advice)


def _check_filters(client: "MastodonClient") -> Finding:
    """Check that the token's account has no blocks and mutes, which its stream leaves out."""
    from mastodon_assets.ingest.api.account_filters import SCOPES, filter_counts
    from mastodon_assets.ingest.api.errors import RefusedError

    try:
        counts = filter_counts(client)
    except RefusedError:
        return Finding("filters", "yellow", "unknown", "set a valid token")
    if not counts:
        return Finding("filters", "green", "the server has no blocks and mutes to look up")
    text = ", ".join(
        f"{name.replace('_', ' ')} {'unknown' if count is None else count}"
        for name, count in counts.items()
    )
    if any(counts.values()):
        advice = "the stream leaves these out; remove them, or use a separate account"
        return Finding("filters", "yellow", text, advice)
    unknown = dict.fromkeys(SCOPES[name] for name, count in counts.items() if count is None)
    if unknown:
        advice = f"add {' and '.join(unknown)} to the token to have them checked"
        return Finding("filters", "yellow", text, advice)
    if client.software().filters_languages:
        text += "; check the languages in its preferences by hand; they filter too"
    return Finding("filters", "green", text)


def _run_check(
    name: str, check: "Callable[[MastodonClient], Finding]", client: "MastodonClient"
) -> Finding:
    try:
        return check(client)
    except PlatformError as error:
        return _failed(name, error)


def _failed(name: str, error: PlatformError) -> Finding:
    """Split an error into what is wrong and, after the first semicolon, what to do."""
    text, _, advice = " ".join(str(error).split()).partition("; ")
    return Finding(name, "red", text, advice)


def _json_object(answer: "httpx.Response") -> Mapping[str, Any] | None:
    from mastodon_assets.ingest.api.transport import json_of

    document = json_of(answer)
    return document if answer.is_success and isinstance(document, Mapping) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """Shorten what a server sent to fit in a line."""
    return str(value)[:_SHOWN_CHARACTERS] if isinstance(value, str | int) else "unknown"
