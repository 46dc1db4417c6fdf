"""The login to the posts: one password, slow after failures, a signed cookie."""

import asyncio
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from pydantic import SecretStr

COOKIE = "mastodon_assets_session"
SECONDS = 8 * 3600
_LONGEST_WAIT = 30.0
_FIRST_WAIT = 0.5
# Attempts that may wait at once; more are refused.
_MOST_WAITING = 5


class TooManyAttemptsError(Exception):
    """Too many attempts wait already."""


@dataclass(frozen=True)
class Session:
    """A login: `name` is for the access log and gives nothing away."""

    name: str
    until: float


class Sessions:
    """Sessions of this process: its key is random, so a restart ends them all."""

    def __init__(self, password: SecretStr | None) -> None:
        self._password = password
        self._key = secrets.token_bytes(32)
        self._ended: dict[str, float] = {}
        self._failures = 0
        self._waiting = 0
        self._one_at_a_time: asyncio.Lock | None = None

    @property
    def is_possible(self) -> bool:
        """Return whether there is a password to log in with."""
        return self._password is not None

    async def log_in(self, password: str) -> str | None:
        """Return a new cookie if the password is right; each failure makes the next try slower.

        Raises:
            TooManyAttemptsError: Too many attempts wait already.
        """
        if self._waiting >= _MOST_WAITING:
            raise TooManyAttemptsError
        if self._one_at_a_time is None:
            self._one_at_a_time = asyncio.Lock()
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                if self._failures:
                    wait = _FIRST_WAIT * 2 ** min(self._failures - 1, 10)
                    await asyncio.sleep(min(wait, _LONGEST_WAIT))
                return self._checked(password)
        finally:
            self._waiting -= 1

    def _checked(self, password: str) -> str | None:
        right = self._password.get_secret_value() if self._password else None
        if right is None or not hmac.compare_digest(password.encode(), right.encode()):
            self._failures += 1
            return None
        self._failures = 0
        name, until = secrets.token_hex(6), int(time.time()) + SECONDS
        return f"{name}.{until}.{self._signature(name, until)}"

    def session(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None if it is not ours, over or ended."""
        parts = (cookie or "").split(".")
        if len(parts) != 3 or not parts[1].isdecimal() or len(parts[1]) > 12:
            return None
        name, until, signature = parts[0], int(parts[1]), parts[2]
        is_ours = hmac.compare_digest(signature.encode(), self._signature(name, until).encode())
        is_open = is_ours and time.time() < until and name not in self._ended
        return Session(name, until) if is_open else None

    def end(self, session: Session) -> None:
        """End a session, whoever still has its cookie."""
        now = time.time()
        # Sessions that are over by themselves need no entry.
        self._ended = {name: until for name, until in self._ended.items() if until > now}
        self._ended[session.name] = session.until

    def _signature(self, name: str, until: int) -> str:
        return hmac.new(self._key, f"{name}.{until}".encode(), hashlib.sha256).hexdigest()
