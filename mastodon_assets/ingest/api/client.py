"""One source of a Mastodon server: who the server is, the source's timeline by REST, its stream.

What belongs here: requests, and what their failures mean. Mastodon.py asks for documents and pages;
the stream is read by httpx, whose reader is a hundred times faster and outlives odd events. The
token travels in the Authorization header alone, and only over TLS or to this machine.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from mastodon_assets.config.sources import PUBLIC, Source
from mastodon_assets.contract.identity import domain_form
from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.ingest.api import event_stream
from mastodon_assets.ingest.api.errors import (
    RateLimitedError,
    RefusedError,
    unreachable,
)
from mastodon_assets.ingest.api.event_stream import EventStream

if TYPE_CHECKING:
    from mastodon import Mastodon

OLDEST = "0"
PAGE_SIZE = 40
# More ids in one request are refused (DEFAULT_STATUSES_LIMIT of the server).
MOST_IDS = 20
NOT_SERVED_BY_IDS = "the server does not serve posts by their ids (Mastodon 4.3 does)"
_REST_SECONDS = 10
_CONNECT_SECONDS = 10
# What httpx raises where there is no answer; the last is that of a host that can be no name.
_NO_ANSWER = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
# What Mastodon.py ends in where an answer is of another form than it expects.
_ODD_ANSWER = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
# What a server says of itself is printed and stored.
_DOMAIN = re.compile(r"[\w.-]{1,250}(?::\d{1,5})?")

_Value = TypeVar("_Value")


class MastodonClient:
    """Asks one server for the timeline and the stream of `source`.

    Nothing is requested before a method is called.
    Raises: SettingsError for an address that would send the token in the clear.
    """

    def __init__(self, base_url: str, token: SecretStr | None, source: Source = PUBLIC) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._source = source
        self._host = _checked_host(self._base_url)
        self._api_client: Mastodon | None = None
        self._document: Mapping[str, Any] | None = None
        self._may_have_moved = False

    @property
    def is_on_this_machine(self) -> bool:
        """Nobody else's server: it needs no restraint but what it asks for."""
        return _is_loopback(self._host)

    def instance_domain(self) -> str:
        """The server's name for itself, else the host asked.

        Raises: ServiceUnavailableError.
        """
        document = self._instance()
        for name in ("domain", "uri"):
            value = document.get(name)
            if isinstance(value, str):
                domain = domain_form(value.strip().rpartition("://")[2].partition("/")[0])
                if is_domain(domain):
                    return domain
        return self._host

    def stream_url(self) -> str:
        """Where the stream is; the server may name another host for it.

        Raises: ServiceUnavailableError, SettingsError for an address without TLS.
        """
        return self._streaming_url(self._source.stream_path)

    def ask(self, path: str) -> httpx.Response:
        """The server's answer to a GET of `path`, whatever its status, for a diagnosis.

        Raises: ServiceUnavailableError where there is no answer.
        """
        return _get(f"{self._base_url}{path}", self._host, self._headers("application/json"))

    def ask_streaming_health(self) -> httpx.Response:
        """The answer of the streaming server's health check, which wants no token.

        Raises: ServiceUnavailableError, SettingsError for an address without TLS.
        """
        url = self._streaming_url("health")
        return _get(url, urlsplit(url).hostname or url, {"User-Agent": _user_agent()})

    def newest_page(self) -> list[Mapping[str, Any]]:
        """The newest posts of the timeline, at most 40, newest first.

        Raises: RateLimitedError, ServiceUnavailableError.
        """
        return self._timeline()

    def timeline_page(self, min_id: str) -> list[Mapping[str, Any]]:
        """The page of at most 40 posts that follows right after `min_id`, newest first.

        `OLDEST` asks for the oldest posts served. An empty page is the timeline's end.
        Raises: RateLimitedError, ServiceUnavailableError.
        """
        return self._timeline(min_id=min_id)

    def timeline_page_before(self, max_id: str) -> list[Mapping[str, Any]]:
        """The page of at most 40 posts right before `max_id`, newest first.

        Raises: RateLimitedError, ServiceUnavailableError.
        """
        return self._timeline(max_id=max_id)

    def statuses(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Those of at most 20 posts that the server still shows. Served since Mastodon 4.3.

        Raises: RateLimitedError, RefusedError (404 before 4.3), ServiceUnavailableError.
        """
        with self._asking():
            return list(self._api().statuses(list(ids)))

    def is_gone(self, status_id: str) -> bool:
        """The server says of this one post that it has it no more, with 404 or 410.

        Raises: RateLimitedError, RefusedError, ServiceUnavailableError: nothing is known then.
        """
        try:
            with self._asking():
                self._api().status(status_id)
        except RefusedError as error:
            if error.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
                return True
            raise
        return False

    @contextmanager
    def open_stream(self) -> Iterator[EventStream]:
        """The stream, connected.

        Raises: ServiceUnavailableError where the server cannot be reached or refuses.
        """
        url = self.stream_url()
        host = urlsplit(url).hostname or url
        timeout = httpx.Timeout(_CONNECT_SECONDS, read=event_stream.SILENCE_SECONDS)
        with httpx.Client(headers=self._headers("text/event-stream"), timeout=timeout) as client:
            try:
                response = client.send(client.build_request("GET", url), stream=True)
            except _NO_ANSWER as error:
                # Within weeks it may move to another host: the server is asked again where it is.
                self._may_have_moved = True
                raise unreachable(host, "no stream", error) from error
            try:
                if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    raise self._rate_limited(_reset_time(response.headers))
                if response.status_code != httpx.codes.OK:
                    raise self._refused(host, response.status_code)
                yield EventStream(response, host)
            finally:
                response.close()

    def _timeline(self, **place: str) -> list[Mapping[str, Any]]:
        with self._asking():
            api = self._api()
            if self._source.tag is not None:
                return list(api.timeline_hashtag(self._source.tag, limit=PAGE_SIZE, **place))
            return list(
                api.timeline_public(
                    local=self._source.kind == "local",
                    remote=self._source.kind == "remote",
                    limit=PAGE_SIZE,
                    **place,
                )
            )

    def _streaming_url(self, path: str) -> str:
        base = _streaming_base(self._instance()) or self._base_url
        _checked_host(base)
        return f"{base.rstrip('/')}/api/v1/streaming/{path}"

    def _instance(self) -> Mapping[str, Any]:
        """The instance document, asked for once, and again when the stream may have moved."""
        if self._document is None or self._may_have_moved:
            try:
                self._document = self._newest_instance()
                self._may_have_moved = False
            except RateLimitedError:
                # It limits requests, not streams: where the stream was it may be still.
                if self._document is None:
                    raise
        return self._document

    def _newest_instance(self) -> Mapping[str, Any]:
        """Version 2 of the document, else version 1 (before 4.0)."""
        from mastodon.errors import MastodonAPIError, MastodonUnauthorizedError

        with self._asking():
            api = self._api()
            try:
                document = api.instance_v2()
            except MastodonUnauthorizedError:
                raise
            except MastodonAPIError:
                document = api.instance_v1()
            if not isinstance(document, Mapping):
                raise TypeError("an instance document is an object")
            return document

    def _api(self) -> "Mastodon":
        from mastodon import Mastodon

        if self._api_client is None:
            self._api_client = Mastodon(
                api_base_url=self._base_url,
                access_token=self._token.get_secret_value() if self._token else None,
                ratelimit_method="throw",
                request_timeout=_REST_SECONDS,
                user_agent=_user_agent(),
                # A server answers an address that it does not have with 404.
                version_check_mode="none",
            )
        return self._api_client

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from mastodon.errors import (
            MastodonAPIError,
            MastodonError,
            MastodonNetworkError,
            MastodonRatelimitError,
        )

        try:
            yield
        except MastodonRatelimitError as error:
            reset = self._api().ratelimit_reset
            # Mastodon.py has set it to our clock already.
            reset_at = None if reset is None else _parsed(_of_number, reset)
            raise self._rate_limited(reset_at) from error
        except MastodonNetworkError as error:
            raise unreachable(self._host, "no answer", error.__context__ or error) from error
        except MastodonAPIError as error:
            # Arguments of a refusal: text, status code, reason, the server's own words.
            status_code = error.args[1] if len(error.args) > 1 else None
            if isinstance(status_code, int):
                raise self._refused(self._host, status_code) from error
            raise ServiceUnavailableError(
                f"{self._host} sent no JSON; is MASTODON_API_BASE_URL a Mastodon server?"
            ) from error
        except (MastodonError, *_ODD_ANSWER) as error:
            raise unreachable(self._host, "no usable answer", error) from error

    def _rate_limited(self, reset_at: datetime | None) -> RateLimitedError:
        return RateLimitedError(
            f"{self._host} wants fewer requests; start again later, it goes on where it was",
            reset_at,
        )

    def _refused(self, host: str, status_code: int) -> RefusedError:
        # Not the server's own words: they could hold anything, the token as well.
        wanted = "a user token with the scope read:statuses"
        if status_code == httpx.codes.UNAUTHORIZED and self._token is None:
            advice = f"it wants a token; set MASTODON_ACCESS_TOKEN to {wanted}"
        elif status_code == httpx.codes.UNAUTHORIZED:
            advice = f"it does not accept the token; set MASTODON_ACCESS_TOKEN to {wanted}"
        elif status_code == httpx.codes.FORBIDDEN:
            advice = f"the token may not read this; set MASTODON_ACCESS_TOKEN to {wanted}"
        elif status_code == httpx.codes.NOT_FOUND:
            advice = "it has no such address; is MASTODON_API_BASE_URL a Mastodon server?"
        else:
            advice = "try again later"
        return RefusedError(f"{host} answered {status_code}: {advice}", status_code)

    def _headers(self, accepted: str) -> dict[str, str]:
        headers = {
            "User-Agent": _user_agent(),
            "Accept": accepted,
            "Cache-Control": "no-store",
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        return headers


def is_domain(text: str) -> bool:
    """It can be a server's name, with or without a port."""
    return _DOMAIN.fullmatch(text) is not None


def _get(url: str, host: str, headers: Mapping[str, str]) -> httpx.Response:
    try:
        return httpx.get(url, headers=dict(headers), timeout=_REST_SECONDS)
    except _NO_ANSWER as error:
        raise unreachable(host, "no answer", error) from error


def _reset_time(headers: Mapping[str, str]) -> datetime | None:
    """When a limit ends, by our clock; None if the server does not say.

    It says so by its own: in ISO 8601, or in seconds since 1970 (GoToSocial).
    """
    text = headers.get("X-RateLimit-Reset", "")
    reset = _parsed(_of_number if text.isdecimal() else datetime.fromisoformat, text)
    server_now = _parsed(parsedate_to_datetime, headers.get("Date", ""))
    if reset is None or server_now is None:
        return reset
    try:
        return datetime.now(UTC) + (reset - server_now)
    except OverflowError:  # a year that there is not
        return reset


def _of_number(seconds: float | str) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def _parsed(parse: Callable[[_Value], datetime], value: _Value) -> datetime | None:
    """A time without a zone is one in UTC; None for what is no time."""
    try:
        found = parse(value)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _streaming_base(document: Mapping[str, Any]) -> str | None:
    """`configuration.urls.streaming` of version 2, `urls.streaming_api` of version 1, as http."""
    configuration = document.get("configuration")
    newer = configuration.get("urls") if isinstance(configuration, Mapping) else None
    for urls, name in ((newer, "streaming"), (document.get("urls"), "streaming_api")):
        value = urls.get(name) if isinstance(urls, Mapping) else None
        if isinstance(value, str) and value:
            return f"http{value[2:]}" if value.startswith(("ws://", "wss://")) else value
    return None


def _checked_host(url: str) -> str:
    """The host of `url`, lower case. Raises: SettingsError unless it is https or this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:  # "https://[", say
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise SettingsError(f"MASTODON_API_BASE_URL: {_without_user(url)} is no https:// address")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SettingsError(
            f"MASTODON_API_BASE_URL: http://{host} would send the token in the clear; use https://"
        )
    return host


def _without_user(url: str) -> str:
    return url.rpartition("@")[2]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _user_agent() -> str:
    return f"mastodon-assets/{version('mastodon-assets')}"
