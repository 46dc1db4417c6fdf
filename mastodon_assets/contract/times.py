"""Times as the message contract writes and reads them."""

from datetime import UTC, datetime


def utc_text(time: datetime) -> str:
    """Format a time with a zone as RFC 3339 in UTC: `2026-11-23T17:43:09.904000Z`."""
    text = time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text}Z"


def parse_utc(text: str) -> datetime:
    """Parse a time of RFC 3339 and convert it to UTC.

    Raises:
        ValueError: `text` is not a time.
    """
    return datetime.fromisoformat(text).astimezone(UTC)
