"""One look at the platform: decide, store, send.

Delivery is at least once. An incident is stored before anything is sent, and that a destination has
a message is stored right after it was sent. A process that is killed between these two sends the
message again; nothing is ever lost. Only one process at a time decides and sends.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from mastodon_assets.alerts.destinations import DeliveryError, Destination
from mastodon_assets.alerts.incidents import (
    Event,
    Incident,
    Reading,
    after_delivery,
    after_sending,
    decide,
    due_event,
)
from mastodon_assets.alerts.messages import MOST_CHARACTERS, Level, level_of, line, title
from mastodon_assets.alerts.store import apply, is_alone, read_unsettled, save
from mastodon_assets.config.settings import Settings
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction

logger = logging.getLogger(__name__)

# A tick of a sensor ends within a minute; what is left goes at the next one.
_SECONDS_TO_SEND = 20.0


@dataclass
class Outcome:
    """What a look led to.

    Attributes:
        open: Number of open incidents.
        sent: Number of messages that destinations took.
        failures: Destination to the reason why it took none.
        is_busy: Whether another process was at it, so that nothing was done.
    """

    open: int = 0
    sent: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    is_busy: bool = False

    def __str__(self) -> str:
        if self.is_busy:
            return "another process looks after the alerts"
        parts = [
            f"{self.open} open incident{'' if self.open == 1 else 's'}",
            f"{self.sent} message{'' if self.sent == 1 else 's'} sent",
            *(f"{name} failed: {reason}" for name, reason in self.failures.items()),
        ]
        return "; ".join(parts)


def watch(
    settings: Settings, reading: Reading, destinations: Sequence[Destination], now: datetime
) -> Outcome:
    """Open and close incidents by what was read, and send the messages that are due.

    Args:
        settings: The settings.
        reading: The facts.
        destinations: Where messages go.
        now: The time.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    outcome = Outcome()
    with transaction(settings.postgres_url, max_seconds=PERSON_SECONDS) as connection:
        if not is_alone(connection):
            return Outcome(is_busy=True)
        clear_after = timedelta(seconds=settings.alert_clear_seconds)
        changes = decide(read_unsettled(connection), reading, now, clear_after=clear_after)
        apply(connection, changes)
        connection.commit()
        _send_all(connection, settings, destinations, now, outcome)
        incidents = read_unsettled(connection)
        names = [each.name for each in destinations]
        settled = [after_sending(each, names, now) for each in incidents]
        save(connection, [each for each in settled if each.settled_at])
        outcome.open = sum(each.is_open for each in incidents)
    return outcome


def _send_all(
    connection: Connection[Any],
    settings: Settings,
    destinations: Sequence[Destination],
    now: datetime,
    outcome: Outcome,
) -> None:
    """Send each destination what it is due, until nothing is left, it fails or time is up."""
    until = time.monotonic() + _SECONDS_TO_SEND
    remind_after = timedelta(hours=settings.alert_reminder_hours)
    while time.monotonic() < until:
        sent = 0
        for destination in destinations:
            # A destination that does not answer takes seconds; others wait for the next tick.
            if destination.name in outcome.failures or time.monotonic() >= until:
                continue
            due = _due(read_unsettled(connection), destination.name, now, remind_after)
            # A server may end transactions that wait for something else.
            connection.commit()
            if not due:
                continue
            text = "\n".join(line(each, event) for each, event in due)
            failure = send(destination, text, level_of([event for _, event in due]))
            if failure is None:
                sent += 1
                changed = [
                    after_delivery(each, event, destination.name, now) for each, event in due
                ]
            else:
                outcome.failures[destination.name] = failure
                logger.warning("alerts: %s failed: %s", destination.name, failure)
                changed = [
                    replace(each, failure=f"{destination.name}: {failure}") for each, _ in due
                ]
            save(connection, changed)
            connection.commit()
        outcome.sent += sent
        if not sent:
            return


def _due(
    incidents: Sequence[Incident], destination: str, now: datetime, remind_after: timedelta
) -> list[tuple[Incident, Event]]:
    """Return what one message has room for."""
    due: list[tuple[Incident, Event]] = []
    characters = 0
    for incident in incidents:
        event = due_event(incident, destination, now, remind_after=remind_after)
        if event is None:
            continue
        characters += len(line(incident, event)) + 1
        if due and characters > MOST_CHARACTERS:
            break
        due.append((incident, event))
    return due


def send(destination: Destination, text: str, level: Level) -> str | None:
    """Send a message; return why the destination did not take it, or None if it did."""
    try:
        destination.send(title(), text, level)
    except DeliveryError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, the others get theirs
        return type(error).__name__
    return None
