"""What a server answers instead of what was asked for."""

from datetime import datetime

import httpx

from mastodon_assets.errors import ServiceUnavailableError


class RefusedError(ServiceUnavailableError):
    """The server answered, with `status_code`, which is no success."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code

    @property
    def is_of_token(self) -> bool:
        """The token is the reason: to ask again soon is of no use."""
        return self.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


class StreamSilentError(ServiceUnavailableError):
    """Three heartbeats in a row did not come."""


class StreamEndedError(ServiceUnavailableError):
    """The stream is over, without an error on the way."""


class RateLimitedError(ServiceUnavailableError):
    """The server wants fewer requests; `reset_at` is when it takes more, if it said so.

    By our clock, whatever the server's shows.
    """

    def __init__(self, message: str, reset_at: datetime | None) -> None:
        super().__init__(message)
        self.reset_at = reset_at


def unreachable(host: str, what: str, error: BaseException) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"{host}: {what} ({type(error).__name__}); is the server up and the address right?"
    )
