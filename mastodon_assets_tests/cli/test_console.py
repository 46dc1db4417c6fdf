"""What is printed and logged: safe for a terminal, and readable by a person or a program."""

import json
import logging

import pytest
from rich.table import Table

from mastodon_assets.cli import console

HOSTILE = "tea\x1b]0;owned\x07\x7f\nnext\u202eline"
logger = logging.getLogger("mastodon_assets.somewhere")


def logged(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_comes_from_the_network_is_escaped_and_stays_in_one_line(
    log_format: console.LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    console.configure_logging("INFO", log_format)
    logger.info("%s: connected", HOSTILE)
    line = logged(capsys)
    assert line.removesuffix("\n").isprintable()
    assert "\\u001b" in line or "\\x1b" in line


def test_a_piped_log_line_has_time_level_logger_and_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.configure_logging("INFO", "text")
    logger.warning("behind by %s messages", 3)
    time, *rest = logged(capsys).split(" ", 3)
    assert time.endswith("Z")
    assert rest == ["WARNING", "mastodon_assets.somewhere", "behind by 3 messages\n"]


def test_a_json_log_line_is_an_object_with_the_message_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.configure_logging("INFO", "json")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("%s", HOSTILE)
    document = json.loads(logged(capsys))
    assert (document["level"], document["message"]) == ("ERROR", HOSTILE)
    assert document["exception"].startswith("Traceback")


def test_a_traceback_keeps_its_lines_and_each_is_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.configure_logging("INFO", "text")
    try:
        raise ValueError("\x1b[31mred")
    except ValueError:
        logger.exception("failed")
    lines = logged(capsys).splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: \\x1b[31mred"


def test_on_a_terminal_a_line_is_short(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.err, "_force_terminal", True)
    monkeypatch.setenv("TERM", "dumb")
    console.configure_logging("INFO", "text")
    logger.info("connected to [bold] hashtag:tea: %s", HOSTILE)
    logger.warning("behind")
    lines = logged(capsys).splitlines()
    assert lines[0].startswith("· connected to [bold] hashtag:tea: tea\\x1b]0;owned")
    assert lines[1] == "warning: behind"


def test_the_level_is_of_our_loggers_and_other_libraries_log_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.configure_logging("DEBUG", "text")
    logger.debug("ours")
    logging.getLogger("httpx").info("theirs")
    logging.getLogger("kafka").warning("theirs too")
    lines = logged(capsys).splitlines()
    assert [line.split(" ", 2)[1:] for line in lines] == [
        ["DEBUG", "mastodon_assets.somewhere ours"],
        ["WARNING", "kafka theirs too"],
    ]
    console.configure_logging("ERROR", "text")
    logger.warning("unseen")
    assert logged(capsys) == ""


def test_configuring_twice_logs_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        console.configure_logging("INFO", "text")
    logger.info("once")
    assert logged(capsys).count("once") == 1


def test_an_error_is_an_object_where_the_log_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    console.configure_logging("ERROR", "json")
    console.print_error("no Kafka broker is known")
    document = json.loads(logged(capsys))
    assert (document["level"], document["message"]) == ("ERROR", "no Kafka broker is known")


def test_a_piped_table_is_not_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("name", "text", box=None)
    table.add_row("one", "word " * 100)
    console.print_table(table)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    assert shown[1].split() == ["one", *["word"] * 100]
