"""The text of a message: one line per incident.

What belongs here: wording. What is due is decided in `incidents`.
"""

import platform
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from mastodon_assets.alerts.incidents import Event, Incident

Level = Literal["failure", "success", "info"]

# Discord takes 2,000 characters.
MOST_CHARACTERS = 1_800
_SHOWN_CHARACTERS = 300


def title() -> str:
    """Return the first line, which names the machine."""
    return f"mastodon_assets on {platform.node() or 'this machine'}"


def line(incident: Incident, event: Event) -> str:
    """Return the line of an incident: what is wrong, since when, or for how long it was."""
    what = incident.what[:_SHOWN_CHARACTERS]
    if event == "opened":
        return f"PROBLEM: {what} (since {_moment(incident.since)})"
    if event == "reminder":
        return f"STILL: {what} (since {_moment(incident.since)})"
    end = incident.absent_since or incident.closed_at or incident.since
    return f"OVER: {what} (until {_moment(end)}, {_lasted(end - incident.since)})"


def level_of(events: Sequence[Event]) -> Level:
    """Return how serious a message with these events is."""
    if "opened" in events:
        return "failure"
    return "success" if set(events) == {"closed"} else "info"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _lasted(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"
