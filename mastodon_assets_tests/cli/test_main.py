"""What all commands share: help, wrong use, errors, exit status, what they must not print."""

import errno
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from mastodon_assets.cli import app, models
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.embedded.stack import Connection
from mastodon_assets_tests.support.commands import Commands

COMMANDS = (
    "demo",
    "run",
    "up",
    "down",
    "status",
    "doctor",
    "ui",
    "ingest",
    "import",
    "simulate",
    "stream",
    "replay",
    "rebuild",
    "rejected",
    "score",
    "model",
    "purge",
    "config",
    "prepare",
    "migrate",
    "roles",
)
GROUPS = (
    "This machine",
    "Posts to Kafka",
    "Kafka to tables",
    "Sentiment",
    "Privacy",
    "Settings",
    "Your own servers",
)


def plain(text: str) -> str:
    """Help without its frame, so that a sentence can be found."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_the_help_names_every_command_and_where_to_start(commands: Commands) -> None:
    for shown in (commands("--help"), commands("-h"), commands()):
        assert shown.status == 0
        assert "Start with: mastodon-assets demo" in plain(shown.out)
        assert all(f" {command} " in plain(shown.out) for command in COMMANDS)
        assert all(f"─ {group} ─" in shown.out for group in GROUPS)


def test_the_help_is_shown_whatever_the_settings_are(commands: Commands) -> None:
    shown = commands("status", "-h", LOG_FORMAT="xml", NEUTRAL_LOW="2")
    assert (shown.status, shown.err) == (0, "")
    assert "Show what runs" in shown.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--toots", "0"), "'--toots': allowed: at least 1"),
        (("demo", "--toots", "many"), "'--toots': allowed: a whole number"),
        (("ui", "--port", "99999"), "'--port': allowed: at most 65535"),
        (("simulate", "--rate", "much"), "'--rate': allowed: a number"),
        (("export", "x", "--from", "today"), "'--from': 'today' is not a day such as 2026-11-20"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    arguments: tuple[str, ...], said: str, commands: Commands
) -> None:
    assert said in commands.failure(2, *arguments)


def test_the_version_is_one_line(commands: Commands) -> None:
    shown = commands("--version")
    assert (shown.status, shown.err) == (0, "")
    assert re.fullmatch(r"mastodon-assets \d+\.\d+\S*\n", shown.out)


@pytest.mark.usefixtures("processes")
def test_a_shell_completes_the_commands() -> None:
    program = [sys.executable, "-m", "mastodon_assets.cli.main"]
    environment = {
        "_MASTODON_ASSETS_COMPLETE": "complete_bash",
        "COMP_WORDS": "mastodon-assets st",
        "COMP_CWORD": "1",
        "PYTHONPATH": str(Path(app.__file__).parents[2]),
    }
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["status", "stream"]


@pytest.mark.usefixtures("processes")
def test_a_reader_that_ends_early_is_no_mistake_of_the_program() -> None:
    program = f"{sys.executable} -m mastodon_assets.cli.main"
    # The reader has ended before the program prints.
    ended = subprocess.run(
        ["sh", "-c", f"{{ sleep 0.1; {program} config show; }} | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("", "")


def test_a_mistake_of_the_program_is_logged_with_its_traceback(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError("\x1b[31mred")

    monkeypatch.setattr(models, "load_settings", fail)
    ended = commands("model", "list", LOG_FORMAT="json")
    assert (ended.status, ended.out) == (1, "")
    document = json.loads(ended.err)
    assert "please report it" in document["message"]
    assert document["exception"].startswith("Traceback")


def test_a_full_disk_is_one_line_that_says_so(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(models, "load_settings", fail)
    reported = commands.failure(1, "model", "list")
    assert reported == "No space left on device; free disk space, then run it again"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_and_each_of_its_options(
    command: str, commands: Commands
) -> None:
    shown = commands(command, "--help")
    assert shown.status == 0
    assert shown.err == ""
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    options = shown.out.split("Options", 2)[-1]
    for line in re.findall(r"│ --[a-z-]+ +(.*?) *│", options):
        assert re.search(r"[A-Za-z]{3,} [A-Za-z0-9]+", line), f"no words: {line}"


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["no-such"], "No such command 'no-such' (see: mastodon-assets --help)"),
        (["demo", "--toots", "0"], "Invalid value for '--toots'"),
        (["demo", "--toots", "many"], "Invalid value for '--toots'"),
        (["ingest", "--max"], "Option '--max' requires an argument"),
        (["up", "now"], "Got unexpected extra argument"),
        (["status", "--jsno"], "No such option: --jsno"),
        (["ui", "--port", "70000"], "Invalid value for '--port'"),
        (["ingest", "--since", "7w"], "--since 7w: allowed: 7d, 12h, 90m or a"),
        (["ingest", "--metrics-port", "0"], "Invalid value for '--metrics-port'"),
        (["simulate", "--rate", "-1"], "Invalid value for '--rate'"),
        (["simulate", "--from", "x", "--rate", "1"], "--rate is for synthetic"),
        (["import", "x", "--instance", "a b"], "'a b' is not a domain"),
        (["replay", "--from", "3"], "--from and --to are offsets of one partition"),
        (["rebuild", "toots_raw"], "no such table: toots_raw; allowed: toot_"),
        (["purge", "--server", "one.example", "--undo", "--dry-run"], "give one of --undo and"),
        (["purge", "--import", "list.jsonl", "--dry-run"], "--undo and --dry-run go with"),
        (["service", "install", __file__], "Invalid value for 'folder'"),
        (["purge", "--list", "--undo"], "--undo and --dry-run go with --account, --server or"),
        (["demo", "--days", "9999999"], "Invalid value for '--days'"),
        (["annotate", "sample", "--days", "9999999"], "Invalid value for '--days'"),
        (["export", "x", "--from", "9999-12-31"], "--from 9999-12-31 is in the future"),
        (["export", "x", "--from", "2026-11-20", "--to", "2926-11-20"], "--to 2926-11-20 is in"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    arguments: list[str], reported: str, commands: Commands
) -> None:
    assert commands.failure(2, *arguments).startswith(reported)


def test_a_wrong_setting_is_one_line_and_status_2(commands: Commands) -> None:
    reported = commands.failure(2, "status", NEUTRAL_LOW="2")
    assert reported == "NEUTRAL_LOW='2': allowed: at most 1"
    reported = commands.failure(2, "status", LOG_FORMAT="xml")
    assert reported == "LOG_FORMAT='xml': allowed: 'text' or 'json'"


def test_the_log_is_configured_by_the_settings_in_any_case_of_letters(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands("config", "show", LOG_LEVEL="debug", LOG_FORMAT="json")
    logging.getLogger("mastodon_assets.somewhere").debug("seen")
    assert json.loads(capsys.readouterr().err)["message"] == "seen"


def test_a_file_that_is_not_there_is_one_line_and_status_1(commands: Commands) -> None:
    for command in ("simulate", "demo"):
        reported = commands.failure(1, command, "--from", "missing.ndjson")
        assert reported.startswith("cannot read missing.ndjson: No such file")


@pytest.mark.parametrize("command", ["ingest", "stream"])
def test_a_command_that_needs_the_stack_says_how_to_start_it(
    command: str, commands: Commands
) -> None:
    assert commands.failure(2, command).startswith(
        "no PostgreSQL is known; run: mastodon-assets up"
    )


def test_a_stream_that_is_caught_up_ends_with_a_count(
    settings: Settings, commands: Commands
) -> None:
    ended = commands("stream", "--until-caught-up", **as_environment(settings))
    assert ended.status == 0, ended.err
    assert ended.out.startswith("0 messages in 0 batches\n")


def test_no_output_holds_the_password(
    stack: Connection, settings: Settings, commands: Commands
) -> None:
    password = conninfo_to_dict(stack.postgres_url)["password"]
    assert isinstance(password, str)
    environment = as_environment(settings)
    wrong = environment["DATABASE_URL"].replace("/test_", "/no_such_")
    for arguments, changed in (
        (["status"], {}),
        (["status"], {"DATABASE_URL": wrong}),
        (["stream", "--until-caught-up"], {"DATABASE_URL": wrong}),
        (["stream", "--until-caught-up"], {"KAFKA_TOPIC": "no_such"}),
        (["ingest"], {"DATABASE_URL": wrong.replace("postgresql:", "mysql:")}),
    ):
        ended = commands(*arguments, **{**environment, **changed})
        assert "Traceback" not in ended.err
        assert password not in ended.out + ended.err
