"""Errors of requests to a Mastodon server."""

import socket
import ssl
from collections.abc import Iterator
from datetime import datetime

import httpx

from mastodon_assets.errors import ServiceUnavailableError


class RefusedError(ServiceUnavailableError):
    """Raised if the server answers with a `status_code` that is not a success.

    `is_of_token` says whether the token is the reason, so that a retry soon is useless.
    """

    def __init__(self, message: str, status_code: int, *, is_of_token: bool = False) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.is_of_token = is_of_token


class NoStreamError(ServiceUnavailableError):
    """Raised if the server has no stream of the requested kind."""


class StreamSilentError(ServiceUnavailableError):
    """Raised if three heartbeats in a row are missing, or posts that the timeline lists."""


class StreamEndedError(ServiceUnavailableError):
    """Raised if the server ends the stream in good order."""


class RateLimitedError(ServiceUnavailableError):
    """Raised if the server wants fewer requests.

    `reset_at` is when it takes more, by this machine's clock; None if the server does not say.
    """

    def __init__(self, message: str, reset_at: datetime | None) -> None:
        super().__init__(message)
        self.reset_at = reset_at


def unreachable(host: str, what: str, error: BaseException) -> ServiceUnavailableError:
    """Return the error for a request that got no usable answer, with its cause in words."""
    return ServiceUnavailableError(f"{host}: {what}: {_cause(error)}")


def _cause(error: BaseException) -> str:
    for each in _chain(error):
        if isinstance(each, httpx.ProxyError):
            return "the proxy refused; check HTTPS_PROXY and NO_PROXY"
        if isinstance(each, socket.gaierror):
            return "its name is not known (DNS); is the address right?"
        if isinstance(each, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not valid ({each.verify_message}); is the address right, and"
                " is this machine's clock?"
            )
        if isinstance(each, ssl.SSLError):
            return "no TLS; does the server speak https there?"
        if isinstance(each, ConnectionRefusedError):
            return "the connection is refused; is the server up and the port right?"
        if isinstance(each, ConnectionResetError) or _is_torn(each):
            return "the server ended the connection in the middle; was it restarted?"
        if isinstance(each, httpx.TimeoutException | TimeoutError):
            return "no answer in time; is the server up and the address right?"
    return f"{type(error).__name__}; is the server up and the address right?"


def _is_torn(error: BaseException) -> bool:
    """Return whether a connection ended before the answer did; h11 says so in words alone."""
    is_of_protocol = isinstance(error, httpx.RemoteProtocolError)
    return is_of_protocol and ("peer closed" in str(error) or "disconnected" in str(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
