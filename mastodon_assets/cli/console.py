"""What a command prints with: the two consoles, JSON, and the configuration of logging.

What belongs here: where lines go and how they are made safe for a terminal. Results go to standard
output; logs, progress and errors to standard error.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

# Only the terminal breaks lines: paths and commands are there to be copied. No emoji, because
# `hashtag:tea:` is none.
out = Console(highlight=False, emoji=False, soft_wrap=True)
err = Console(highlight=False, emoji=False, soft_wrap=True, stderr=True)

# The parent of the loggers of all our modules.
_ours = logging.getLogger("mastodon_assets")
# Other libraries log their requests and retries at INFO.
_LEAST_OTHERS_LEVEL = logging.WARNING
_MARKS = {
    logging.DEBUG: ("· ", "dim"),
    logging.INFO: ("· ", "dim"),
    logging.WARNING: ("warning: ", "yellow"),
    logging.ERROR: ("error: ", "red"),
    logging.CRITICAL: ("error: ", "red"),
}
_UNLIMITED_WIDTH = 100_000
# Zero width non-joiner and joiner. They change no direction and hide nothing.
_JOINERS = "\u200c\u200d"

LogFormat = Literal["text", "json"]


def escaped(text: str | bytes) -> str:
    r"""Return text that is safe on a terminal and in a log.

    Bytes that are not UTF-8 and characters that are not printable (control characters, line breaks,
    changes of writing direction) become escapes such as `\x1b`.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def in_one_line(text: str) -> str:
    """Return `text` with each run of white space as one space."""
    return " ".join(text.split())


def print_line(*parts: str | tuple[str, str]) -> None:
    """Print one line to standard output, escaped; a part is a text or a text and its style."""
    out.print(_assembled(*parts))


def print_text(text: str) -> None:
    """Print a text of somebody else to standard output: its lines wrapped, each escaped.

    Joiners stay as they are: Persian, Hindi and emoji are written with them.
    """
    for line in text.splitlines():
        shown = "".join(each if each in _JOINERS else escaped(each) for each in line)
        out.print(Text(shown), soft_wrap=False)


def print_table(table: Table) -> None:
    """Print a table to standard output; on anything but a terminal no cell is wrapped or cut."""
    if out.is_terminal:
        out.print(table, soft_wrap=False)
        return
    wide = Console(highlight=False, emoji=False, file=sys.stdout, width=_UNLIMITED_WIDTH)
    with wide.capture() as capture:
        wide.print(table)
    # Rich fills the last column with spaces.
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def print_json(document: object) -> None:
    """Print a document to standard output: JSON in ASCII, one line."""
    sys.stdout.write(f"{json.dumps(document)}\n")


def print_counts(counts: Mapping[str, float]) -> None:
    """Print one line per number. All tables of a screen have the same columns."""
    for name, count in counts.items():
        print_line(f"  {name:<40}{count:>12,.0f}")


def report(line: str) -> None:
    """Log one step of a bounded operation, such as a download, at level INFO."""
    _ours.info("%s", line)


def print_error(message: str) -> None:
    """Print why a command failed: `error: …` in one line, or a JSON object if logs are JSON."""
    line = in_one_line(message)
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, _Handler)]
    if any(isinstance(each.formatter, JsonFormatter) for each in handlers):
        _ours.error("%s", line)
    else:
        err.print(_assembled(("error:", "red"), f" {line}"))


def progress_bar() -> Progress:
    """Return a bar on standard error, which shows nothing if that is not a terminal."""
    return Progress(console=err, transient=True, disable=not err.is_terminal)


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Send all logs to standard error.

    Args:
        level: The least level of this platform's loggers. Other libraries log warnings and errors.
        log_format: `text` is short on a terminal and has time, level and logger otherwise;
            `json` is one object per line.
    """
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(earlier)
    root.addHandler(_handler(log_format))
    _ours.setLevel(level)
    root.setLevel(max(_LEAST_OTHERS_LEVEL, _ours.level))


class EscapingFormatter(logging.Formatter):
    """One line per record: ISO time in UTC, level, logger, message.

    Whatever may come from the network is escaped. A traceback follows in lines of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, and those of its traceback."""
        return "\n".join([self._line(record), *map(escaped, _traceback(self, record))])

    def _line(self, record: logging.LogRecord) -> str:
        message = escaped(record.getMessage())
        return f"{_time(record)} {record.levelname} {record.name} {message}"


class TerminalFormatter(EscapingFormatter):
    """Short lines for a person: `· message`, `warning: message`."""

    def _line(self, record: logging.LogRecord) -> str:
        return f"{_mark(record)[0]}{escaped(record.getMessage())}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message` and, if any, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON in ASCII."""
        document = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if lines := _traceback(self, record):
            document["exception"] = "\n".join(lines)
        # JSON escapes all other control characters.
        return json.dumps(document).replace("\x7f", "\\u007f")


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is then."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.addFilter(_says_more_than_an_exception)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _TerminalHandler(_Handler):
    """Writes above a progress bar, if there is one, and in colour."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            mark, style = _mark(record)
            text = Text(self.format(record))
            text.stylize(style, 0, len(mark))
            err.print(text)
        except (OSError, ValueError):
            self.handleError(record)


def _says_more_than_an_exception(record: logging.LogRecord) -> bool:
    """Leave out Py4J's records: what it logs, with a traceback, it also raises; Ctrl-C too."""
    return "py4j" not in record.pathname


def _handler(log_format: LogFormat) -> _Handler:
    if log_format == "text" and err.is_terminal:
        handler: _Handler = _TerminalHandler()
        handler.setFormatter(TerminalFormatter())
    else:
        handler = _Handler()
        handler.setFormatter(JsonFormatter() if log_format == "json" else EscapingFormatter())
    return handler


def _mark(record: logging.LogRecord) -> tuple[str, str]:
    return _MARKS.get(record.levelno, _MARKS[logging.INFO])


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    return (record.exc_text or "").splitlines()


def _assembled(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(
        *(escaped(part) if isinstance(part, str) else (escaped(part[0]), part[1]) for part in parts)
    )
