"""`alerts list` and `alerts test`."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mastodon_assets.alerts.destinations import destinations_of
from mastodon_assets.alerts.incidents import Problem, Reading
from mastodon_assets.alerts.watch import watch
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets_tests.support.commands import Commands


def test_incidents_are_listed_open_ones_first_and_as_json(
    settings: Settings, commands: Commands, tmp_path: Path
) -> None:
    environment = as_environment(settings)
    assert commands("alerts", "list", **environment).out == "no incidents\n"
    names = ["one.example", "two.example"]
    problems = [Problem(f"token_refused {name}", "token_refused", f"{name}\x1b") for name in names]
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    to_file = settings.model_copy(update={"alert_file": tmp_path / "alerts.jsonl"})
    to_folder = settings.model_copy(update={"alert_file": tmp_path})
    for minutes, given, count in ((0, to_folder, 2), (10, to_file, 1), (20, to_file, 1)):
        reading = Reading(tuple(problems[:count]))
        watch(given, reading, destinations_of(given), now + timedelta(minutes=minutes))
    noon = "2026-11-20 12:00Z"
    listed = commands("alerts", "list", **environment).out.splitlines()
    assert [line.split() for line in listed] == [
        ["state", "since", "until", "first", "sent", "what"],
        f"open {noon} 2026-11-20 12:10Z one.example\\x1b".split(),
        f"closed {noon} 2026-11-20 12:10Z 2026-11-20 12:10Z two.example\\x1b".split(),
    ]
    first, second = json.loads(commands("alerts", "list", "--json", **environment).out)
    assert (first["is_open"], second["is_open"]) == (True, False)
    assert second["deliveries"]["file"]["event"] == "closed"
    assert (
        len(json.loads(commands("alerts", "list", "--closed", "0", "--json", **environment).out))
        == 1
    )


def test_a_test_message_goes_to_every_destination_and_a_failure_is_the_exit_status(
    commands: Commands, tmp_path: Path
) -> None:
    assert commands.failure(2, "alerts", "test") == (
        "no destination is configured; set ALERT_WEBHOOK_URL, ALERT_URLS or ALERT_FILE"
    )
    file = tmp_path / "alerts.jsonl"
    sent = commands("alerts", "test", ALERT_FILE=str(file))
    assert (sent.status, sent.out) == (0, "file: took the message\n")
    assert "test" in json.loads(file.read_text(encoding="utf-8"))["text"]
    failed = commands("alerts", "test", "--json", ALERT_FILE=str(tmp_path))
    assert failed.status == 1
    assert json.loads(failed.out) == [
        {"destination": "file", "failure": f"cannot write {tmp_path} (Is a directory)"}
    ]
