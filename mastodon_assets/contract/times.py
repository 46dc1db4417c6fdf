"""Times as the message contract writes them."""

from datetime import UTC, datetime


def utc_text(time: datetime) -> str:
    """RFC 3339 in UTC, `2026-11-23T17:43:09.904000Z`. `time` has a zone."""
    text = time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text}Z"
