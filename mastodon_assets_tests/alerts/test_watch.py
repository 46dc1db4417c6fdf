"""Incidents in the database, and messages about them: each once, whatever fails."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from mastodon_assets.alerts import store
from mastodon_assets.alerts.destinations import DeliveryError, Destination
from mastodon_assets.alerts.incidents import Incident, Problem, Reading
from mastodon_assets.alerts.messages import Level
from mastodon_assets.alerts.store import is_alone, read_incidents
from mastodon_assets.alerts.watch import Outcome, watch
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.warehouse.database import connect

_NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_REFUSED = Problem("token_refused a", "token_refused", "a: the server refuses the token")
_SILENT = Problem("source_silent b", "source_silent", "b: the stream sends no posts")


@dataclass
class _Receiver:
    """A destination that takes messages while it is up."""

    name: str = "receiver"
    is_up: bool = True
    texts: list[str] = field(default_factory=list)

    def send(self, _title: str, text: str, _level: Level) -> None:
        if not self.is_up:
            raise DeliveryError("no answer")
        self.texts.append(text)

    @property
    def destination(self) -> Destination:
        return Destination(self.name, self.send)


Look = Callable[..., Outcome]


@pytest.fixture
def settings_of_alerts(database_url: SecretStr) -> Settings:
    with connect(database_url) as connection:
        connection.execute("DELETE FROM masto.alerts")
    return load_settings(database_url=database_url, alert_clear_seconds=60)


@pytest.fixture
def look(settings_of_alerts: Settings) -> Look:
    """`look(receivers, problems, minutes=0)`: one tick."""

    def look_(receivers: list[_Receiver], problems: list[Problem], minutes: int = 0) -> Outcome:
        return watch(
            settings_of_alerts,
            Reading(tuple(problems)),
            [each.destination for each in receivers],
            _NOW + minutes * _MINUTE,
        )

    return look_


def _stored(settings: Settings) -> list[Incident]:
    return read_incidents(settings.postgres_url, closed=9)


def test_each_incident_has_one_message_at_its_start_and_one_at_its_end(
    look: Look, settings_of_alerts: Settings
) -> None:
    receiver = _Receiver()
    assert str(look([receiver], [_REFUSED])) == "1 open incident; 1 message sent"
    assert str(look([receiver], [_REFUSED], 1)) == "1 open incident; 0 messages sent"
    look([receiver], [_REFUSED, _SILENT], 2)
    look([receiver], [], 3)
    assert str(look([receiver], [], 4)) == "0 open incidents; 1 message sent"
    look([receiver], [], 5)
    assert receiver.texts == [
        "PROBLEM: a: the server refuses the token (since 2026-11-20 12:00 UTC)",
        "PROBLEM: b: the stream sends no posts (since 2026-11-20 12:02 UTC)",
        "OVER: a: the server refuses the token (until 2026-11-20 12:03 UTC, 3 min)\n"
        "OVER: b: the stream sends no posts (until 2026-11-20 12:03 UTC, 1 min)",
    ]
    assert all(each.settled_at == _NOW + 4 * _MINUTE for each in _stored(settings_of_alerts))


def test_an_open_incident_is_recalled_once_a_day(look: Look) -> None:
    receiver = _Receiver()
    day = 24 * 60
    for minutes in (0, 1, day - 1, day, day + 1, 2 * day, 2 * day + 1):
        look([receiver], [_REFUSED], minutes)
    assert [text.partition(":")[0] for text in receiver.texts] == ["PROBLEM", "STILL", "STILL"]


def test_a_failed_delivery_is_seen_and_made_up_for_and_others_do_not_wait_for_it(
    look: Look, settings_of_alerts: Settings
) -> None:
    down, up = _Receiver("down", is_up=False), _Receiver("up")
    assert str(look([down, up], [_REFUSED])) == (
        "1 open incident; 1 message sent; down failed: no answer"
    )
    look([down, up], [], 1)
    look([down, up], [], 2)
    assert [text.partition(":")[0] for text in up.texts] == ["PROBLEM", "OVER"]
    (incident,) = _stored(settings_of_alerts)
    assert (incident.failure, incident.settled_at) == ("down: no answer", None)
    down.is_up = True
    assert look([down, up], [], 3).sent == 2
    assert down.texts == up.texts
    (incident,) = _stored(settings_of_alerts)
    assert (incident.failure, incident.settled_at) == (None, _NOW + 3 * _MINUTE)


def test_a_process_killed_between_sending_and_storing_sends_again_and_loses_nothing(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = _Receiver()
    saved = store.save

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mastodon_assets.alerts.watch.save", dies)
        with pytest.raises(KeyboardInterrupt):
            look([receiver], [_REFUSED])
    assert store.save is saved
    look([receiver], [_REFUSED], 1)
    assert receiver.texts == [receiver.texts[0]] * 2


def test_two_processes_do_not_both_send(look: Look, settings_of_alerts: Settings) -> None:
    receiver = _Receiver()
    with connect(settings_of_alerts.postgres_url) as connection:
        assert is_alone(connection)
        outcome = look([receiver], [_REFUSED])
    assert (outcome.is_busy, receiver.texts) == (True, [])
    assert look([receiver], [_REFUSED]).sent == 1


def test_without_a_destination_incidents_are_kept_and_only_open_ones_told_later(
    look: Look, settings_of_alerts: Settings
) -> None:
    look([], [_REFUSED, _SILENT])
    look([], [_SILENT], 1)
    look([], [_SILENT], 2)
    assert [each.is_open for each in _stored(settings_of_alerts)] == [True, False]
    receiver = _Receiver()
    look([receiver], [_SILENT], 3)
    assert receiver.texts == ["PROBLEM: b: the stream sends no posts (since 2026-11-20 12:00 UTC)"]


def test_many_incidents_at_once_are_a_few_messages(look: Look) -> None:
    receiver = _Receiver()
    problems = [Problem(f"token_refused {n}", "token_refused", f"{n}: refused") for n in range(100)]
    outcome = look([receiver], problems)
    assert outcome.sent == len(receiver.texts) < 10
    assert sum(text.count("PROBLEM") for text in receiver.texts) == 100
    assert max(map(len, receiver.texts)) < 2000
