"""Errors of requests to a Mastodon server."""

from datetime import datetime

import httpx

from mastodon_assets.errors import ServiceUnavailableError


class RefusedError(ServiceUnavailableError):
    """Raised if the server answers with a `status_code` that is not a success."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code

    @property
    def is_of_token(self) -> bool:
        """Whether the token is the reason, so that a retry soon is useless."""
        return self.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


class StreamSilentError(ServiceUnavailableError):
    """Raised if three heartbeats in a row are missing."""


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
    """Return the error for a request that got no usable answer."""
    return ServiceUnavailableError(
        f"{host}: {what} ({type(error).__name__}); is the server up and the address right?"
    )
