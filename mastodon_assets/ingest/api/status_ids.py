"""Identifiers of statuses: opaque text, which some servers build from times."""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

_FIRST_SNOWFLAKE = datetime(2016, 1, 1, tzinfo=UTC).timestamp()


def readable_id(value: object) -> str | None:
    """Return an id as text, or None if `value` is none. Some servers send numbers."""
    if isinstance(value, str):
        return str(value) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def snowflake_time(status_id: str) -> datetime | None:
    """Return the time of an id of Mastodon; None for another form.

    The id has 48 bits of milliseconds since 1970 and 16 random bits (lib/mastodon/snowflake.rb).
    """
    if not is_number(status_id):
        return None
    seconds = (int(status_id) >> 16) / 1000
    if not _FIRST_SNOWFLAKE < seconds < time.time() + 24 * 3600:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def inner_post(status: Any) -> Any:
    """Return the post inside a boost, which a public timeline may list in no other way (snac)."""
    inner = status.get("reblog") if isinstance(status, Mapping) else None
    return inner if isinstance(inner, Mapping) else status


def is_number(status_id: str) -> bool:
    """Return whether the id is a number, which can be compared."""
    return status_id.isascii() and status_id.isdecimal()


def newest_id(page: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the id of the first status of a page that has one; pages are newest first."""
    return next((found for status in page if (found := listed_id(status))), None)


def listed_id(status: object) -> str | None:
    """Return the id of a status document, or None if it has none."""
    return readable_id(status.get("id")) if isinstance(status, Mapping) else None
