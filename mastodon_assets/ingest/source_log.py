"""Log messages that begin with the server and the source they are about."""

import logging
from collections.abc import MutableMapping
from typing import Any


class SourceLog(logging.LoggerAdapter[logging.Logger]):
    """A module's logger for one source; `name` is `instance/source`."""

    def __init__(self, logger: logging.Logger, name: str) -> None:
        super().__init__(logger, {"source": name})
        # Messages are templates: a percent sign of the name is none of theirs.
        self._prefix = name.replace("%", "%%")

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[str, MutableMapping[str, Any]]:
        """Put the name in front of the message."""
        return f"{self._prefix}: {msg}", kwargs
