"""The access log: who looked at posts when and with which filters. No post's text is in it."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import PRIVATE

FILE = "dashboard-access.log"
_LARGEST, _KEPT = 5_000_000, 9


class AccessLogError(PlatformError):
    """The access log cannot be written; posts are not shown without it."""


class AccessLog:
    """A file with one JSON object per look; it is rotated at 5 MB, and nine old files are kept."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._handler: RotatingFileHandler | None = None

    def write(self, event: str, client: str, **more: object) -> None:
        """Write one line: `at`, `event`, `client` and more.

        Raises:
            AccessLogError: It cannot be written.
        """
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        self._append({**line, "client": client, **more})

    def _append(self, line: Mapping[str, object]) -> None:
        record = logging.LogRecord("access", logging.INFO, "", 0, json.dumps(line), None, None)
        try:
            if self._handler is None:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self.path.touch(mode=PRIVATE)
                self._handler = _Handler(
                    self.path, maxBytes=_LARGEST, backupCount=_KEPT, encoding="utf-8"
                )
            self._handler.emit(record)
        except OSError as error:
            raise AccessLogError(
                f"cannot write the access log {self.path} ({error.strerror}); make the folder"
                " writable, or set MASTODON_ASSETS_HOME to another one"
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._handler:
            self._handler.close()


class _Handler(RotatingFileHandler):
    """One that raises if it cannot write, and whose files only their owner can read."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Raise what happened."""
        error = sys.exc_info()[1]
        assert error is not None
        raise error

    def doRollover(self) -> None:
        """Rotate; the new file is private, too."""
        super().doRollover()
        Path(self.baseFilename).chmod(PRIVATE)
