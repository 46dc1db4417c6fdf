"""The client of one source: instance document, timeline pages, posts by id, event stream.

What belongs here: requests of the API, and what their refusals mean. Addresses, proxies,
certificates and bodies are in `transport`.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx
import orjson
from pydantic import SecretStr

from mastodon_assets.config.servers import Server, servers_of
from mastodon_assets.config.settings import Settings
from mastodon_assets.config.sources import PUBLIC, Source
from mastodon_assets.contract.identity import domain_form
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.ingest.api import event_stream, transport
from mastodon_assets.ingest.api.errors import NoStreamError, RateLimitedError, RefusedError
from mastodon_assets.ingest.api.event_socket import EventSocket, opened_socket
from mastodon_assets.ingest.api.event_stream import EventStream
from mastodon_assets.ingest.api.rate_limits import RateLimits
from mastodon_assets.ingest.api.software import UNKNOWN, Software, nodeinfo_path, software_of

OLDEST = "0"
PAGE_SIZE = 40
# More ids in one request are refused (DEFAULT_STATUSES_LIMIT of the server).
MOST_IDS = 20
NOT_SERVED_BY_IDS = "the server does not serve posts by their ids (Mastodon 4.3 does)"
_READ_SECONDS = 10
# Also for a body that comes drop by drop.
_REST_SECONDS = 30
_NO_SUCH_PLACE = frozenset(
    {
        httpx.codes.NOT_FOUND,
        httpx.codes.METHOD_NOT_ALLOWED,
        httpx.codes.GONE,
        httpx.codes.NOT_IMPLEMENTED,
    }
)
_NO_SOCKET = _NO_SUCH_PLACE | {httpx.codes.BAD_REQUEST, httpx.codes.UPGRADE_REQUIRED}
# What a server says of itself is printed and stored.
_DOMAIN = re.compile(r"[\w.-]{1,250}(?::\d{1,5})?")
_SCOPE_ADVICE = "set MASTODON_ACCESS_TOKEN to a user token with the scope read:statuses"

_Value = TypeVar("_Value")


class MastodonClient:
    """Requests the timeline and the stream of one source; nothing before a method is called."""

    def __init__(
        self,
        base_url: str,
        token: SecretStr | None,
        source: Source = PUBLIC,
        *,
        contact: str | None = None,
        rate_limits: RateLimits | None = None,
        reload_token: Callable[[], SecretStr | None] | None = None,
    ) -> None:
        """Check address and token.

        Args:
            base_url: The server's address, https or on this machine.
            token: A user token; None reads without one.
            source: The timeline and stream to read.
            contact: How an administrator can reach the operator; a part of the User-Agent.
            rate_limits: Counts the requests that no caller counts.
            reload_token: Reads the token again after a refusal, because files are rotated.

        Raises:
            SettingsError: The address would send the token in the clear, or the token is damaged.
        """
        self._base_url = base_url.rstrip("/")
        self._host = transport.checked_host(self._base_url)
        if token is not None:
            transport.check_token(token.get_secret_value())
        self._token = token
        self._source = source
        self._user_agent = transport.user_agent(contact)
        self._rate_limits = rate_limits
        self._reload_token = reload_token
        self._http_client: httpx.Client | None = None
        self._lock = threading.Lock() if rate_limits is None else rate_limits.one_at_a_time
        self._document: Mapping[str, Any] | None = None
        self._may_have_moved = False
        self._software: Software | None = None

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the server is on this machine, and so needs no restraint."""
        return transport.is_loopback(self._host)

    @property
    def has_token(self) -> bool:
        """Whether requests are made for an account."""
        return self._token is not None

    def without_token(self) -> "MastodonClient":
        """Return a client of the same source that reads as anybody."""
        client = MastodonClient(self._base_url, None, self._source, rate_limits=self._rate_limits)
        client._user_agent = self._user_agent
        return client

    def instance_domain(self) -> str:
        """Return the server's name for itself, or the host if it has none.

        Raises:
            ServiceUnavailableError: The server does not answer or refuses.
        """
        document = self._instance()
        for name in ("domain", "uri"):
            value = document.get(name)
            if isinstance(value, str):
                domain = domain_form(value.strip().rpartition("://")[2].partition("/")[0])
                if is_domain(domain):
                    return domain
        return self._host

    def software(self) -> Software:
        """Return the server's software by its nodeinfo, which needs no token; requested once.

        Raises:
            RateLimitedError: The server wants fewer requests.
            ServiceUnavailableError: The server does not answer, so that nothing is known.
        """
        if self._software is None:
            path = nodeinfo_path(self._nodeinfo("/.well-known/nodeinfo"))
            found = None if path is None else self._nodeinfo(path)
            self._software = UNKNOWN if found is None else software_of(found)
        return self._software

    def stream_url(self) -> str:
        """Return the address of the stream, which may be on another host.

        Raises:
            ServiceUnavailableError: The server does not answer or refuses.
            UntrustedAddressError: The server names an address that may not get the token.
        """
        return self._streaming_url(self._source.stream_path)

    def ask(self, path: str) -> httpx.Response:
        """Return the answer to a GET of `path`, whatever its status, for a diagnosis.

        Raises:
            ServiceUnavailableError: There is no answer.
        """
        return self._get(f"{self._base_url}{path}", self._headers("application/json"))

    def get(self, path: str) -> httpx.Response:
        """Return the answer to a GET of `path`; once more with a new token if it was changed.

        Raises:
            RateLimitedError: The server wants fewer requests.
            RefusedError: The server refuses.
            ServiceUnavailableError: There is no answer.
        """
        url = f"{self._base_url}{path}"
        response = self._get(url, self._headers("application/json"))
        if response.is_success:
            return response
        refusal = self._refusal(self._host, response, response.content)
        if isinstance(refusal, RefusedError) and refusal.is_of_token and self._has_new_token():
            response = self._get(url, self._headers("application/json"))
            if response.is_success:
                return response
            refusal = self._refusal(self._host, response, response.content)
        raise refusal

    def ask_streaming_health(self) -> httpx.Response:
        """Return the answer of the streaming server's health check, which needs no token.

        Raises:
            ServiceUnavailableError: There is no answer.
            UntrustedAddressError: The server names an unusable address.
        """
        return self._get(self._streaming_url("health"), {"User-Agent": self._user_agent})

    def newest_page(self) -> list[Mapping[str, Any]]:
        """Return the newest posts of the timeline, at most 40, newest first.

        Raises:
            RateLimitedError: The server wants fewer requests.
            ServiceUnavailableError: The server does not answer or refuses.
        """
        return self._timeline()

    def timeline_page(self, min_id: str) -> list[Mapping[str, Any]]:
        """Return the page of at most 40 posts that follows right after `min_id`, newest first.

        `OLDEST` asks for the oldest posts served.

        Raises:
            RateLimitedError: The server wants fewer requests.
            ServiceUnavailableError: The server does not answer or refuses.
        """
        return self._timeline(min_id=min_id)

    def timeline_page_before(self, max_id: str) -> list[Mapping[str, Any]]:
        """Return the page of at most 40 posts right before `max_id`, newest first.

        Raises:
            RateLimitedError: The server wants fewer requests.
            ServiceUnavailableError: The server does not answer or refuses.
        """
        return self._timeline(max_id=max_id)

    def statuses(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return those of at most 20 posts that the server still shows, since Mastodon 4.3.

        Raises:
            RateLimitedError: The server wants fewer requests.
            RefusedError: The server refuses; other software answers 403, 404 or 405.
            ServiceUnavailableError: The server does not answer.
        """
        return self._list("/api/v1/statuses", [("id[]", each) for each in ids])

    def status(self, status_id: str) -> Mapping[str, Any] | None:
        """Return one post, or None if the server says by 404 or 410 that it is gone.

        Raises:
            RateLimitedError: The server wants fewer requests; nothing is known then.
            RefusedError: The server refuses; nothing is known then.
            ServiceUnavailableError: The server does not answer; nothing is known then.
        """
        return self._document_or_gone(f"/api/v1/statuses/{quote(status_id, safe='')}", "post")

    def account(self, account_id: str) -> Mapping[str, Any] | None:
        """Return one account, or None if the server says by 404 or 410 that it is gone.

        Raises:
            RateLimitedError: The server wants fewer requests; nothing is known then.
            RefusedError: The server refuses; nothing is known then.
            ServiceUnavailableError: The server does not answer; nothing is known then.
        """
        return self._document_or_gone(f"/api/v1/accounts/{quote(account_id, safe='')}", "account")

    def _document_or_gone(self, path: str, kind: str) -> Mapping[str, Any] | None:
        try:
            found = self._json(path)
        except RefusedError as error:
            if error.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
                return None
            raise
        if not isinstance(found, Mapping):
            raise ServiceUnavailableError(
                f"{self._host} sent no {kind}; is MASTODON_API_BASE_URL a Mastodon server?"
            )
        return found

    @contextmanager
    def open_events(self) -> Iterator[EventStream | EventSocket]:
        """Connect to whichever stream the server answers: server-sent events, else a socket.

        Raises:
            NoStreamError: The server has neither, or none without a token.
            RefusedError: The server refuses.
            RateLimitedError: The server wants fewer requests.
            ServiceUnavailableError: The server does not answer.
        """
        with ExitStack() as stack:
            opened: EventStream | EventSocket
            try:
                try:
                    opened = stack.enter_context(self.open_stream())
                except NoStreamError as error:
                    opened = stack.enter_context(self._open_socket(error))
            except RefusedError as error:
                if self._token is None and error.status_code == httpx.codes.UNAUTHORIZED:
                    raise NoStreamError(str(error)) from error
                raise
            yield opened

    @contextmanager
    def _open_socket(self, cause: NoStreamError) -> Iterator[EventSocket]:
        # Other names open as well, and stay silent for ever (GoToSocial).
        name = {"public": "public", "local": "public:local"}.get(self._source.kind)
        if name is None:
            raise cause
        url = f"{self._streaming_url('').rstrip('/')}?stream={name}"
        host = urlsplit(url).hostname or url

        def refusal(status_code: int, content_type: str) -> ServiceUnavailableError:
            is_other = status_code in _NO_SOCKET or status_code < httpx.codes.BAD_REQUEST
            if is_other:
                return NoStreamError(f"{cause}, and no socket")
            response = httpx.Response(status_code, headers={"Content-Type": content_type})
            return self._refusal(host, response, b"")

        self._count()
        headers = self._headers("application/json")
        kept = {name: headers[name] for name in ("Authorization",) if name in headers}
        with opened_socket(
            url,
            kept,
            user_agent=self._user_agent,
            check_token=self._check_token,
            refusal=refusal,
        ) as socket:
            yield socket

    def _check_token(self) -> None:
        """Make a request with the token, which a socket outlives (GoToSocial).

        Raises:
            RefusedError: The token is not valid any more; any other failure says nothing of it.
        """
        self._count()
        try:
            self.newest_page()
        except RefusedError as error:
            if error.is_of_token:
                raise
        except ServiceUnavailableError:
            pass

    @contextmanager
    def open_stream(self) -> Iterator[EventStream]:
        """Connect to the stream of server-sent events.

        Raises:
            NoStreamError: The server has no such stream.
            RefusedError: The server refuses.
            RateLimitedError: The server wants fewer requests.
            ServiceUnavailableError: The server does not answer.
        """
        url = self.stream_url()
        self._count()
        read_seconds = event_stream.SILENCE_SECONDS
        with transport.new_client(url, read_seconds=read_seconds) as client:
            try:
                with self._opened_stream(client, url) as stream:
                    yield stream
            except RefusedError as error:
                if not (error.is_of_token and self._has_new_token()):
                    raise
                raise ServiceUnavailableError(
                    f"{error}; the token was changed since, it is read again"
                ) from error

    @contextmanager
    def _opened_stream(self, client: httpx.Client, url: str) -> Iterator[EventStream]:
        host = urlsplit(url).hostname or url
        try:
            opening = transport.opened(
                client,
                url,
                self._headers("text/event-stream"),
                seconds=_REST_SECONDS,
                is_stream=True,
            )
            response = opening.__enter__()
        except RefusedError as error:
            raise NoStreamError(str(error)) from error
        except ServiceUnavailableError:
            # Within weeks it may move to another host: the server is asked again where it is.
            self._may_have_moved = True
            raise
        try:
            kind = response.headers.get("Content-Type", "").lower()
            is_other = response.is_success and not kind.startswith("text/event-stream")
            if is_other or response.status_code in _NO_SUCH_PLACE:
                raise NoStreamError(f"{host} has no event stream here")
            if not response.is_success:
                raise self._refusal(host, response, _short_body(response))
            yield EventStream(response, host)
        finally:
            opening.__exit__(None, None, None)

    def _timeline(self, **place: str) -> list[Mapping[str, Any]]:
        path, _, query = self._source.timeline_path.partition("?")
        parameters = [("limit", str(PAGE_SIZE)), *place.items()]
        if query:
            name, _, value = query.partition("=")
            parameters.append((name, value))
        return self._list(f"/api/v1/timelines/{path}", parameters)

    def _list(self, path: str, parameters: Sequence[tuple[str, str]]) -> list[Mapping[str, Any]]:
        found = self._json(f"{path}?{urlencode(parameters)}")
        if not isinstance(found, list):
            raise ServiceUnavailableError(
                f"{self._host} sent no list; is MASTODON_API_BASE_URL a Mastodon server?"
            )
        return found

    def _streaming_url(self, path: str) -> str:
        named = _named_streaming(self._instance())
        return f"{transport.checked_stream_base(self._base_url, named)}/api/v1/streaming/{path}"

    def _instance(self) -> Mapping[str, Any]:
        """Return the instance document, requested once, and again if the stream may have moved."""
        if self._document is None or self._may_have_moved:
            try:
                self._document = self._newest_instance()
                self._may_have_moved = False
            except RateLimitedError:
                # It limits requests, not streams: the stream may be where it was.
                if self._document is None:
                    raise
        return self._document

    def _newest_instance(self) -> Mapping[str, Any]:
        """Return version 2 of the document, or version 1 (Mastodon before 4.0, snac)."""
        self._count()
        try:
            document = self._json("/api/v2/instance")
        except RefusedError as error:
            if error.is_of_token:
                raise
            self._count()
            document = self._json("/api/v1/instance")
        if not isinstance(document, Mapping):
            raise ServiceUnavailableError(
                f"{self._host} sent no instance document; is MASTODON_API_BASE_URL a Mastodon"
                " server?"
            )
        return document

    def _nodeinfo(self, path: str) -> Any:
        """Return a document of the server's description; None if it has none."""
        self._count()
        headers = {"User-Agent": self._user_agent, "Accept": "application/json"}
        try:
            response = self._get(f"{self._base_url}{path}", headers)
        except RefusedError:
            return None
        if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            # To take a failure for unknown software could publish what nobody agreed to.
            raise self._refusal(self._host, response, response.content)
        return transport.json_of(response) if response.is_success else None

    def _json(self, path: str) -> Any:
        """Return the parsed answer to a GET."""
        response = self.get(path)
        try:
            return orjson.loads(response.content)
        except (orjson.JSONDecodeError, RecursionError) as error:
            # Half of a surrogate pair is refused by orjson, and such a post is kept.
            try:
                return response.json()
            except (ValueError, RecursionError):
                pass
            raise ServiceUnavailableError(
                f"{self._host} sent no JSON; is MASTODON_API_BASE_URL a Mastodon server?"
            ) from error

    def _get(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        with self._lock:
            if self._http_client is None:
                self._http_client = transport.new_client(self._base_url, read_seconds=_READ_SECONDS)
            with transport.opened(
                self._http_client,
                url,
                {**headers, "Accept-Encoding": "gzip"},
                seconds=_REST_SECONDS,
            ) as response:
                body = transport.body_of(response, seconds=_REST_SECONDS)
                kept = {
                    name: value
                    for name, value in response.headers.items()
                    if name.lower() not in ("content-encoding", "content-length")
                }
                return httpx.Response(
                    response.status_code, headers=kept, content=body, request=response.request
                )

    def _has_new_token(self) -> bool:
        """Read the token again; return whether it is another one."""
        if self._reload_token is None:
            return False
        try:
            token = self._reload_token()
            if token is None or token == self._token:
                return False
            transport.check_token(token.get_secret_value())
        except PlatformError:
            return False
        self._token = token
        return True

    def _count(self) -> None:
        if self._rate_limits is not None:
            self._rate_limits.every.count()

    def _refusal(self, host: str, response: httpx.Response, body: bytes) -> ServiceUnavailableError:
        # Not the server's own words: they could hold anything, the token as well.
        status_code = response.status_code
        if status_code == httpx.codes.TOO_MANY_REQUESTS or "Retry-After" in response.headers:
            reset_at = reset_time(response.headers)
            return RateLimitedError(f"{host} wants fewer requests{_until(reset_at)}", reset_at)
        is_page = _is_page(response)
        is_of_token = (
            status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN) and not is_page
        )
        if status_code == httpx.codes.UNAUTHORIZED and self._token is None:
            advice = f"it wants a token; {_SCOPE_ADVICE}"
        elif status_code == httpx.codes.UNAUTHORIZED and not is_page:
            advice = f"it does not accept the token; {_SCOPE_ADVICE}"
        elif status_code == httpx.codes.BAD_REQUEST and b"bearer token" in body[:200].lower():
            is_of_token = True
            advice = f"it does not accept the token; {_SCOPE_ADVICE}"
        elif is_of_token:
            advice = f"the token may not read this; {_SCOPE_ADVICE}"
        elif is_page and status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            advice = (
                "a web page refuses, not the API: a protection in front of the server may block"
                " this machine; ask the server's admins (the token is not the reason)"
            )
        elif status_code == httpx.codes.NOT_FOUND:
            advice = "it has no such address; is MASTODON_API_BASE_URL a Mastodon server?"
        elif status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            advice = f"it wants a user's token; {_SCOPE_ADVICE}"
        elif response.is_server_error:
            advice = "a fault at the server, which usually passes by itself"
        else:
            advice = "it refuses this request; ask its admins why"
        return RefusedError(
            f"{host} answered {status_code}: {advice}", status_code, is_of_token=is_of_token
        )

    def _headers(self, accepted: str) -> dict[str, str]:
        headers = {
            "User-Agent": self._user_agent,
            "Accept": accepted,
            "Accept-Encoding": "identity",
            "Cache-Control": "no-store",
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        return headers


def client_of(
    settings: Settings,
    server: Server,
    source: Source = PUBLIC,
    *,
    rate_limits: RateLimits | None = None,
) -> MastodonClient:
    """Return the client of a source with the settings' contact; it reads rotated tokens again.

    Raises:
        SettingsError: The address would send the token in the clear, or the token is damaged.
    """

    def reload_token() -> SecretStr | None:
        tokens = {each.address: each.token for each in servers_of(settings)}
        return tokens.get(server.address)

    return MastodonClient(
        server.base_url,
        server.token,
        source,
        contact=settings.mastodon_contact,
        rate_limits=rate_limits,
        reload_token=reload_token,
    )


def is_domain(text: str) -> bool:
    """Return whether the text can be a server's name, with or without a port."""
    return _DOMAIN.fullmatch(text) is not None


def reset_time(headers: Mapping[str, str]) -> datetime | None:
    """Return when a limit ends by this machine's clock; None if the server does not say.

    `Retry-After` is a number of seconds or a date. `X-RateLimit-Reset` is in ISO 8601, cut to the
    second by some servers (GoToSocial), or in seconds since 1970: one second is added.
    """
    after = headers.get("Retry-After", "").strip()
    now = datetime.now(UTC)
    if after.isascii() and after.isdecimal():
        return _added(now, timedelta(seconds=min(int(after[:9]), 10**8)))
    server_now = _parsed(parsedate_to_datetime, headers.get("Date", ""))
    reset = _parsed(parsedate_to_datetime, after) if after else None
    if reset is None:
        text = headers.get("X-RateLimit-Reset", "").strip()
        reset = _parsed(_of_number if text.isdecimal() else datetime.fromisoformat, text)
    if reset is None:
        return None
    left = timedelta(seconds=1) + (reset - (server_now or now))
    return _added(now, left) or reset


def _until(reset_at: datetime | None) -> str:
    if reset_at is None:
        return " and does not say until when; wait a few minutes"
    return f" until {reset_at:%Y-%m-%d %H:%M:%S}Z; wait until then"


def _added(time: datetime, left: timedelta) -> datetime | None:
    try:
        return time + left
    except OverflowError:  # a year that does not exist
        return None


def _of_number(seconds: float | str) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def _parsed(parse: Callable[[_Value], datetime], value: _Value) -> datetime | None:
    """Parse a time, in UTC if it has no zone; None if it is none."""
    try:
        found = parse(value)
    except (ValueError, OverflowError, OSError, TypeError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _named_streaming(document: Mapping[str, Any]) -> str | None:
    """Return `configuration.urls.streaming` of version 2 or `urls.streaming_api` of version 1."""
    configuration = document.get("configuration")
    newer = configuration.get("urls") if isinstance(configuration, Mapping) else None
    for urls, name in ((newer, "streaming"), (document.get("urls"), "streaming_api")):
        value = urls.get(name) if isinstance(urls, Mapping) else None
        if isinstance(value, str) and value:
            return value
    return None


def _is_page(response: httpx.Response) -> bool:
    """Whether a web page came in place of an answer of the API."""
    return "html" in response.headers.get("Content-Type", "").lower()


def _short_body(response: httpx.Response) -> bytes:
    """Return the beginning of a refusal's body."""
    try:
        return transport.body_of(response, seconds=_REST_SECONDS)[:1000]
    except ServiceUnavailableError:
        return b""
