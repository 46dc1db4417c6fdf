"""Conversion of a `Status` document to a message of the contract. Pure.

What belongs here: which field of Mastodon becomes which field of a message. The functions take
documents of the stream (times are text, keys may be missing) and of Mastodon.py's REST calls (times
are datetimes in the local zone, missing keys are None). `contract.messages` alone decides what a
message looks like: an invalid value is passed on and refused there.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mastodon_assets.contract.identity import full_handle, tag_forms
from mastodon_assets.contract.messages import Message
from mastodon_assets.contract.times import utc_text
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.api.html_text import html_to_text
from mastodon_assets.ingest.api.status_ids import readable_id

VERSION = 1
_LONGEST_LANGUAGE = 255
_PLAIN_TYPES = (str, int, float, type(None))


class NormalizeError(PlatformError):
    """Raised if a status lacks what a message needs. It names the field, never its value."""


def to_upsert(
    status: Mapping[str, Any], *, instance: str, received_at: datetime, origin: str
) -> Message:
    """Return the message for a post or for an edit of it.

    Args:
        status: A `Status` document.
        instance: The server that was read.
        received_at: When the document was received.
        origin: `stream`, `backfill`, `import`, `simulator` or `replay`.

    Raises:
        NormalizeError: id, uri and url, author or a time cannot be read, or the text is no text.
    """
    content_html = status.get("content")
    if not isinstance(content_html, str | None):
        raise NormalizeError("content is not text")
    account = _account(status)
    message = {
        "v": VERSION,
        "op": "upsert",
        "instance": instance,
        "id": _required_id(status),
        "uri": _uri(status),
        "url": _text(status.get("url")),
        "created_at": _time("created_at", status.get("created_at")),
        "edited_at": _optional_time("edited_at", status.get("edited_at")),
        "received_at": utc_text(received_at),
        "username": _handle(account, instance),
        "user_id": readable_id(account.get("id")),
        "language": _language(status.get("language")),
        "content_html": content_html,
        "content": html_to_text(content_html or ""),
        "hashtags": _hashtags(status.get("tags")),
        "favourites": _count(status.get("favourites_count")),
        "reblogs": _count(status.get("reblogs_count")),
        "replies": _count(status.get("replies_count")),
        "visibility": status.get("visibility"),
        "sensitive": _boolean(status.get("sensitive")),
        "spoiler_text": status.get("spoiler_text"),
        "in_reply_to_id": readable_id(status.get("in_reply_to_id")),
        "bot": _boolean(account.get("bot")),
        "origin": origin,
    }
    for name, value in message.items():
        if name != "hashtags" and not isinstance(value, _PLAIN_TYPES):
            raise NormalizeError(f"{name} is not a plain value")
    return message


def to_delete(status_id: str, *, instance: str, received_at: datetime, origin: str) -> Message:
    """Return the message that deletes a post for good."""
    return {
        "v": VERSION,
        "op": "delete",
        "instance": instance,
        "id": status_id,
        "received_at": utc_text(received_at),
        "origin": origin,
    }


def _required_id(status: Mapping[str, Any]) -> str:
    status_id = readable_id(status.get("id"))
    if status_id is None:
        raise NormalizeError("id is missing")
    return status_id


def _uri(status: Mapping[str, Any]) -> str:
    for name in ("uri", "url"):
        value = status.get(name)
        if isinstance(value, str) and value:
            return str(value)
    raise NormalizeError("uri and url are missing")


def _account(status: Mapping[str, Any]) -> Mapping[str, Any]:
    account = status.get("account")
    if not isinstance(account, Mapping):
        raise NormalizeError("account is missing")
    return account


def _handle(account: Mapping[str, Any], instance: str) -> str:
    handle = full_handle(account, instance)
    if handle is None:
        raise NormalizeError("account.acct is missing")
    return handle


def _hashtags(tags: object) -> list[str]:
    """Return the names in their one form. Some servers send plain text, not objects."""
    if not isinstance(tags, list):
        return []
    names = (tag.get("name") if isinstance(tag, Mapping) else tag for tag in tags)
    return tag_forms(name for name in names if isinstance(name, str) and name)


def _count(value: object) -> object:
    """Return a count; some servers write it as text, or hide it as null or a negative number."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value[:20])
    is_hidden = value is None or (isinstance(value, int | float) and value < 0)
    return 0 if is_hidden else value


def _text(value: object) -> str | None:
    """Return a text that nothing depends on; None if it is none."""
    return value if isinstance(value, str) else None


def _language(value: object) -> str | None:
    """Return a language tag; None if it is none, or too long for one."""
    return value if isinstance(value, str) and len(value) <= _LONGEST_LANGUAGE else None


def _boolean(value: object) -> object:
    """Return a boolean; some servers write 0 and 1."""
    return bool(value) if value in (0, 1) else value


def _optional_time(name: str, value: object) -> str | None:
    return None if value in (None, "", False) else _time(name, value)


def _time(name: str, value: object) -> str:
    """Return a time as the contract writes it.

    Raises:
        NormalizeError: `value` is no time, or has no zone.
    """
    try:
        # RFC 3339 allows small letters.
        time = datetime.fromisoformat(value.upper()) if isinstance(value, str) else value
        if isinstance(time, datetime) and time.tzinfo is not None:
            return utc_text(time)
    except (ValueError, OverflowError) as error:
        raise NormalizeError(f"{name} is not a time of RFC 3339") from error
    raise NormalizeError(f"{name} is not a time of RFC 3339")
