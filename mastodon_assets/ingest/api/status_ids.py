"""Identifiers of statuses: opaque text that some servers make of numbers or times."""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

_FIRST_SNOWFLAKE = datetime(2016, 1, 1, tzinfo=UTC).timestamp()


def readable_id(value: object) -> str | None:
    """An id as text; None where `value` is none. Ids are opaque, some servers send numbers."""
    if isinstance(value, str):
        return str(value) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def snowflake_time(status_id: str) -> datetime | None:
    """When an id of vanilla Mastodon was made; None for an id that is none.

    48 bits of milliseconds since 1970, 16 bits of chance (lib/mastodon/snowflake.rb).
    """
    if not is_number(status_id):
        return None
    seconds = (int(status_id) >> 16) / 1000
    if not _FIRST_SNOWFLAKE < seconds < time.time() + 24 * 3600:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def is_number(status_id: str) -> bool:
    """Ids are opaque, but numbers can be compared."""
    return status_id.isascii() and status_id.isdecimal()


def newest_id(page: Iterable[Mapping[str, Any]]) -> str | None:
    """A page stands newest first; that order counts, ids are opaque."""
    return next((found for status in page if (found := _status_id(status))), None)


def _status_id(status: object) -> str | None:
    return readable_id(status.get("id")) if isinstance(status, Mapping) else None
