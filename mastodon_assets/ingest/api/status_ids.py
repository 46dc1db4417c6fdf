"""Identifiers of statuses: opaque text, which some servers build from times."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

_FIRST_TIME = datetime(2016, 1, 1, tzinfo=UTC)
_TAKAHE_BEGAN = 1_641_020_400_000  # 2022-01-01T07:00:00Z
_DAY = 24 * 3600 * 1000
_CROCKFORD, _ULID_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 26
# The longest id of the message contract; Python refuses numbers of thousands of digits.
_LONGEST_ID = 255


def readable_id(value: object) -> str | None:
    """Return an id as text, or None if `value` is none. Some servers send numbers."""
    if isinstance(value, str):
        return str(value) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def id_time(status_id: str) -> datetime | None:
    """Return the time of an id that is built from one; None for another form.

    Mastodon's have 48 bits of milliseconds since 1970 and 16 others (lib/mastodon/snowflake.rb).
    Takahe's have 41 bits of milliseconds since 2022-01-01T07:00:00Z and 22 others. GoToSocial's are
    ULIDs: ten letters are milliseconds since 1970, by the author's server. The first form that
    gives a time from 2016 until tomorrow is taken.
    """
    form = _form_of(status_id)
    return None if form is None else _TIMES[form](status_id)


def id_at(at: datetime, example: str) -> str | None:
    """Return the first id of a time in the form of `example`; None if that has no times."""
    milliseconds = round(at.timestamp() * 1000)
    match _form_of(example):
        case "mastodon":
            return str(milliseconds << 16)
        case "takahe":
            return str(max(0, milliseconds - _TAKAHE_BEGAN) << 22)
        case "ulid":
            letters = (_CROCKFORD[(milliseconds >> bits) & 31] for bits in range(45, -1, -5))
            return "".join(letters) + "0" * 16
    return None


def _form_of(status_id: str) -> str | None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for form, time_of in _TIMES.items():
        found = time_of(status_id)
        if found is not None and _FIRST_TIME < found < tomorrow:
            return form
    return None


def _mastodon_time(status_id: str) -> datetime | None:
    return _of_milliseconds(int(status_id) >> 16) if is_number(status_id) else None


def _takahe_time(status_id: str) -> datetime | None:
    if not is_number(status_id):
        return None
    milliseconds = int(status_id) >> 22
    # Small numbers count posts, not time.
    return _of_milliseconds(milliseconds + _TAKAHE_BEGAN) if milliseconds > _DAY else None


def _ulid_time(status_id: str) -> datetime | None:
    if len(status_id) != _ULID_LETTERS or not set(status_id) <= set(_CROCKFORD):
        return None
    milliseconds = 0
    for letter in status_id[:10]:
        milliseconds = milliseconds * 32 + _CROCKFORD.index(letter)
    return _of_milliseconds(milliseconds)


def _of_milliseconds(milliseconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a year that does not exist
        return None


_TIMES: Mapping[str, Callable[[str], datetime | None]] = {
    "mastodon": _mastodon_time,
    "takahe": _takahe_time,
    "ulid": _ulid_time,
}


def inner_post(status: Any) -> Any:
    """Return the post inside a boost, which a public timeline may list in no other way (snac)."""
    inner = status.get("reblog") if isinstance(status, Mapping) else None
    return inner if isinstance(inner, Mapping) else status


def is_number(status_id: str) -> bool:
    """Return whether the id is a number, which can be compared."""
    return len(status_id) <= _LONGEST_ID and status_id.isascii() and status_id.isdecimal()


def id_order(status_id: str) -> tuple[int, str]:
    """Return the key that sorts ids of one server, the oldest first: by length, then by characters.

    Numbers and ULIDs are made of times; ids of another form have no order.
    """
    return len(status_id), status_id


def newest_id(page: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the id of the first status of a page that has one; pages are newest first."""
    return next((found for status in page if (found := listed_id(status))), None)


def listed_id(status: object) -> str | None:
    """Return the id of a status document, or None if it has none."""
    return readable_id(status.get("id")) if isinstance(status, Mapping) else None


def posted_at(status: object) -> datetime | None:
    """Return the time of a post by its id, else the one that its author's server claims."""
    status_id = listed_id(status)
    found = None if status_id is None else id_time(status_id)
    if found is not None or not isinstance(status, Mapping):
        return found
    value = status.get("created_at")
    try:
        claimed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return claimed if claimed is not None and claimed.tzinfo is not None else None
